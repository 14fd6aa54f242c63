"""MAE on a teacher's tokens."""

from unittest import mock

import torch
from mmpretrain.registry import MODELS


def tokens(model, images) -> torch.Tensor:
    """What the branch gets as the student's tokens."""
    with mock.patch.object(model.dtm, 'loss') as loss:
        model.loss([images, images], [])
    return loss.call_args.args[0]


def test_the_head_is_the_only_projection(mae_cfg, build):
    assert not [k for k in build(mae_cfg).state_dict() if 'decoder_pred' in k]


def test_tokens_come_in_the_images_order(mae_cfg, build):
    """Without attention, a marked patch may change its own token alone."""
    model = build(mae_cfg).eval()
    for block in (*model.backbone.layers, *model.neck.decoder_blocks):
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
    model.backbone.mask_ratio = 0.0  # every patch visible, in a drawn order
    images = torch.randn(1, 3, 64, 64)
    for row, column in ((0, 0), (1, 2), (3, 1)):
        marked = images.clone()
        marked[..., row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] += 3
        before, after = tokens(model, images), tokens(model, marked)  # drawn anew
        changed = (before - after).abs().amax(-1)[0] > 1e-4
        assert changed.nonzero().flatten().tolist() == [row * 4 + column]


def test_masked_patches_are_not_seen(mae_cfg, build):
    """Where the encoder keeps 4 of 16 patches, only these have a say."""
    model = build(mae_cfg).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.manual_seed(3)
    _, mask, _ = model.backbone(images)
    assert mask.sum() == 12
    hidden = mask[0].bool().nonzero().flatten().tolist()
    others = images.clone()
    for patch in hidden:
        row, column = divmod(patch, 4)
        others[..., row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 9.0
    torch.manual_seed(3)
    before = tokens(model, images)
    torch.manual_seed(3)
    torch.testing.assert_close(tokens(model, others), before)


def test_loss_is_that_of_mmpretrains_tokens(mae_cfg, build, batch):
    """The decoder's tokens are mmpretrain's, and all positions count."""
    mae_cfg['dtm']['morphing'] = dict(type='IdentityMorphing')
    model = build(mae_cfg).eval()
    theirs = MODELS.build(mae_cfg['neck'])
    theirs.load_state_dict(model.neck.state_dict(), strict=False)
    with torch.no_grad():
        theirs.decoder_pred.weight.copy_(torch.eye(36).repeat(22, 1)[:768])
        theirs.decoder_pred.bias.zero_()
    data = model.data_preprocessor(batch(), training=True)
    torch.manual_seed(4)
    latent, _, order = model.backbone(data['inputs'][0])
    tokens = theirs(latent, order)[..., :36]
    u, v = model.dtm.head(tokens), model.dtm.target_generator(data['inputs'][1])
    expected = (1 - torch.cosine_similarity(u, v, dim=-1)).mean()
    torch.manual_seed(4)
    torch.testing.assert_close(model(**data, mode='loss')['loss'], expected)

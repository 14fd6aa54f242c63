"""BYOL with DTM beside."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS

pytestmark = pytest.mark.usefixtures('max_iters')


def test_without_dtm_it_is_mmpretrains(byol_cfg, build, views):
    """mmpretrain's own, where the backbone gives the class token alone."""
    model = build(byol_cfg)
    theirs = dict(byol_cfg, type='BYOL')
    theirs['backbone'] = dict(theirs['backbone'], out_type='cls_token')
    theirs = MODELS.build(theirs).train()
    theirs.load_state_dict(model.state_dict())
    for seed in (0, 1):  # the second with a momentum encoder that lags behind
        losses = model(views(seed), mode='loss')
        expected = theirs(views(seed), mode='loss')
        assert list(losses) == ['loss']
        torch.testing.assert_close(losses['loss'], expected['loss'])
        for network in (model, theirs):
            with torch.no_grad():
                for parameter in network.backbone.parameters():
                    parameter.mul_(1.1)


def test_dtms_loss_by_hand(byol_cfg, dtm_part, build, views):
    """Each view's tokens meet the momentum encoder's of the same view."""
    dtm_part.update(morphing=dict(type='IdentityMorphing'), weight=0.5)
    del dtm_part['target_generator']
    byol_cfg['dtm'] = dtm_part
    model = build(byol_cfg)
    model(views(), mode='loss')  # the momentum encoder becomes a copy ...
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    momentum = copy.deepcopy(model.target_net)  # ... that lags behind
    losses = model(views(1), mode='loss')
    momentum.update_parameters(torch.nn.Sequential(model.backbone, model.neck))
    expected = 0
    for view in views(1):
        u = model.dtm.head.projection(model.backbone(view)[-1][:, 1:])
        v = momentum.module[0](view)[-1][:, 1:]
        expected += 0.5 * (1 - torch.cosine_similarity(u, v, dim=-1)).mean() / 2
    torch.testing.assert_close(losses['loss_dtm'], expected)


def test_given_target_tokens_get_no_gradient(byol_cfg, dtm_part, build):
    del dtm_part['target_generator']
    byol_cfg['dtm'] = dtm_part
    branch = build(byol_cfg).dtm
    tokens, target = torch.randn(2, 4, 16, 48, requires_grad=True)
    tokens.retain_grad(), target.retain_grad()
    branch.loss(tokens, target).backward()
    assert tokens.grad.abs().sum() > 0 and target.grad is None


def test_a_teacher_is_refused(byol_cfg, dtm_part, build):
    byol_cfg['dtm'] = dtm_part
    with pytest.raises(TypeError, match='target_generator'):
        build(byol_cfg)

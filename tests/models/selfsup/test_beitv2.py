"""BEiT v2 with DTM beside."""

import copy

import pytest
import torch
from mmpretrain.models.selfsup import BEiT


def step(model, data) -> dict[str, torch.Tensor]:
    return model(**model.data_preprocessor(data, training=True), mode='loss')


def mmpretrains(model, cfg) -> BEiT:
    """mmpretrain's own BEiT v2 with the same weights."""
    theirs = BEiT(
        backbone=copy.deepcopy(model.backbone),
        neck=copy.deepcopy(model.neck),
        head=copy.deepcopy(model.head),
        target_generator=copy.deepcopy(model.target_generator.teacher),
        data_preprocessor=dict(
            type='TwoNormDataPreprocessor',
            mean=cfg['data_preprocessor']['mean'],
            std=cfg['data_preprocessor']['std'],
            second_mean=[127.5] * 3,
            second_std=[127.5] * 3,
            to_rgb=True,
        ),
    )
    theirs.target_generator.eval()
    return theirs


@pytest.mark.parametrize('weight', [None, 0.0])
def test_without_dtm_it_is_mmpretrains(beit_cfg, dtm_part, build, batch, weight):
    if weight is not None:
        beit_cfg['dtm'] = dict(dtm_part, weight=weight)
    model = build(beit_cfg)
    theirs = mmpretrains(model, beit_cfg)
    ours = step(model, batch())
    data = batch()
    inputs = theirs.data_preprocessor(
        dict(inputs=[data['inputs']] * 2, data_samples=None), training=True
    )['inputs']
    expected = theirs.loss(inputs, data['data_samples'])
    assert list(ours)[:2] == ['loss_1', 'loss_2']
    torch.testing.assert_close(
        sum(ours.values()), expected['loss_1'] + expected['loss_2']
    )
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name])
    assert ours['loss_1'] != ours['loss_2']


def test_dtms_loss_is_added_with_its_weight(beit_cfg, dtm_part, build, batch):
    dtm_part['morphing'] = dict(type='IdentityMorphing')
    beit_cfg['dtm'] = dict(dtm_part, weight=0.25)
    model = build(beit_cfg).eval()
    data = batch()
    losses = step(model, data)
    assert list(losses) == ['loss_1', 'loss_2', 'loss_dtm']

    rgb = data['inputs'].flip(1).float()
    mean, std = (
        torch.tensor(value).view(3, 1, 1)
        for value in (model.dtm.target_generator.mean, model.dtm.target_generator.std)
    )
    v = model.dtm.target_generator((rgb - mean) / std)
    views = model.data_preprocessor(data)['inputs']
    mask = torch.stack([sample.mask for sample in data['data_samples']])
    tokens = model.neck.norm(model.backbone(views[0], mask)[-1])[:, 1:]
    u = model.dtm.head.projection(tokens)
    expected = 0.25 * (1 - torch.cosine_similarity(u, v, dim=-1)).mean()
    torch.testing.assert_close(losses['loss_dtm'], expected)


def test_a_fine_tuning_backbone_loads_it(beit_cfg, build, tmp_path):
    from mmpretrain.registry import MODELS

    model = build(beit_cfg)
    torch.nn.init.normal_(model.backbone.rel_pos_bias.relative_position_bias_table)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'beit.pth')
    student = MODELS.build(
        dict(
            type='DTMViT',
            arch=beit_cfg['backbone']['arch'],
            img_size=64,
            out_type='raw',
            layer_scale_init_value=0.5,
            init_cfg=dict(
                type='Pretrained',
                checkpoint=str(tmp_path / 'beit.pth'),
                prefix='backbone.',
            ),
        )
    )
    student.init_weights()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        student.eval()(images)[-1],
        model.eval()(images, mode='tensor')[-1],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_negative_weight_is_refused(beit_cfg, dtm_part, build):
    beit_cfg['dtm'] = dict(dtm_part, weight=-1)
    with pytest.raises(ValueError, match='is -1. Give one of at least 0'):
        build(beit_cfg)


def test_another_grid_than_the_tokenizers_is_refused(beit_cfg, build):
    beit_cfg['backbone'].update(img_size=128)
    with pytest.raises(ValueError, match='VQKDGenerator has 4x4 patches.*8x8'):
        build(beit_cfg)

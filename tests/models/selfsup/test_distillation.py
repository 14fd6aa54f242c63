"""Distillation: the student sees the whole image."""

import pytest
import torch

MERGING = dict(type='LayerwiseMorphingGenerator', num_merged=3)


@pytest.fixture
def distil_cfg(dtm_cfg) -> dict:
    dtm_cfg['backbone'].update(
        type='DTMViT',
        out_type='raw',
        final_norm=True,
        use_shared_rel_pos_bias=True,
        layer_scale_init_value=0.5,
    )
    return dict(dtm_cfg, type='DTMDistillation')


@pytest.mark.parametrize(
    'morphing',
    [
        dict(type='IdentityMorphing'),
        dict(type='DownsampleMorphing', stride=2),
        dict(type='BipartiteMorphing', num_iters=(1, 4)),
        None,  # merged inside the teacher
    ],
)
def test_every_row_of_table_2(distil_cfg, build, batch, check_gradients, morphing):
    distil_cfg['morphing'] = morphing
    if morphing is None:
        distil_cfg['target_generator'].update(MERGING)
    model = build(distil_cfg)
    data = batch()
    for sample in data['data_samples']:
        del sample.mask
    data = model.data_preprocessor(data, training=True)
    check_gradients(model, model(**data, mode='loss'))


def test_the_student_sees_everything(distil_cfg, build, batch):
    """Masks, should the samples hold any, change nothing."""
    distil_cfg['morphing'] = dict(type='IdentityMorphing')
    model = build(distil_cfg).eval()
    data = model.data_preprocessor(batch(), training=True)
    u = model.head(model.backbone(data['inputs'][0])[-1][:, 1:])
    v = model.target_generator(data['inputs'][1])
    expected = (1 - torch.cosine_similarity(u, v, dim=-1)).mean()
    torch.testing.assert_close(model(**data, mode='loss')['loss'], expected)

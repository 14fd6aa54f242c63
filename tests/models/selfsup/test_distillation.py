"""Distillation: the student sees the whole image."""

import torch


def test_the_student_sees_everything(distil_cfg, build, batch):
    """Masks, should the samples hold any, change nothing."""
    distil_cfg['morphing'] = dict(type='IdentityMorphing')
    model = build(distil_cfg).eval()
    data = model.data_preprocessor(batch(), training=True)
    u = model.head(model.backbone(data['inputs'][0])[-1][:, 1:])
    v = model.target_generator(data['inputs'][1])
    expected = (1 - torch.cosine_similarity(u, v, dim=-1)).mean()
    torch.testing.assert_close(model(**data, mode='loss')['loss'], expected)

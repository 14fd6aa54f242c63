"""The contract of a student, checked when a model is built and in its steps."""

from unittest import mock

import pytest
import torch
from mmpretrain.registry import MODELS
from tiny import ARCH, dtm_config

import mmdtm.plugin  # noqa: F401
from mmdtm.models.backbones import Student, check_student


class Bare(torch.nn.Module):
    """Lacks everything."""

    def forward(self, x):
        return (x,)


class Pooled(Bare):
    """Keeps the contract, and pools its tokens."""

    embed_dims, num_extra_tokens, patch_resolution, img_size = 8, 0, (4, 4), 64

    def __init__(self, tokens=15):
        super().__init__()
        self.layer = torch.nn.Linear(1, 8)
        self.tokens = tokens

    def forward(self, x, mask=None):
        return (self.layer(x.flatten(1)[:, : self.tokens, None]),)


def dtm(student: type, **options) -> torch.nn.Module:
    config = dtm_config()
    config['backbone'] = dict(type=student.__name__, **options)
    with mock.patch.dict(MODELS.module_dict, {student.__name__: student}):
        return MODELS.build(config)


def test_all_that_is_missing_is_named_when_the_model_is_built():
    with pytest.raises(ValueError) as error:
        dtm(Bare)
    message = str(error.value)
    assert message.startswith('Bare cannot be a student: it lacks embed_dims')
    for name in ('num_extra_tokens', 'patch_resolution', 'img_size', 'argument mask'):
        assert name in message
    assert 'docs/inherit.md' in message


def test_a_backbone_without_masks_is_refused_and_distils():
    config = dict(type='DTMViT', arch=ARCH, img_size=64, out_type='raw')
    student = MODELS.build(config)
    with pytest.raises(ValueError, match='lacks an argument mask of forward'):
        check_student(student)
    check_student(student, masked=False)
    assert isinstance(student, Student)


@pytest.mark.parametrize('tokens', [15, 17])
def test_a_backbone_that_drops_tokens_is_refused_in_its_first_step(tokens, batch):
    model = dtm(Pooled, tokens=tokens)
    data = model.data_preprocessor(batch(2), training=True)
    with pytest.raises(ValueError, match=rf'\(2, {tokens}, 8\).*4 x 4 positions'):
        model(**data, mode='loss')
    model.backbone.tokens = 16
    assert model(**data, mode='loss')['loss'].isfinite()


def test_pooled_features_are_no_tokens(batch):
    config = dtm_config()
    config['backbone'].update(out_type='avg_featmap')
    model = MODELS.build(config)
    data = model.data_preprocessor(batch(2), training=True)
    with pytest.raises(ValueError, match="out_type='raw'"):
        model(**data, mode='loss')

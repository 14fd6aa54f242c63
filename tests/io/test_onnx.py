"""ONNX files and exported programs against the models that they were made of."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import onnx
import onnxruntime
import pytest
import torch
from test_converters import classifier, fill, pretrained
from tiny import ARCH
from tiny_run import run_tool

from mmdtm.models.backbones import DTMViT
from mmdtm.models.onnx import write_onnx


def run(file, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    (found,) = session.run(None, {'images': images.numpy()})
    return torch.from_numpy(found)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_pretrained_tokens_in_onnx(tmp_path):
    """Of another size than the training's, and for any number of images."""
    model, size = pretrained(), 96
    state = {f'backbone.{name}': v for name, v in model.state_dict().items()}
    about = write_onnx(state, tmp_path / 'a.onnx', size)
    assert about['output'] == 'tokens' and about['difference'] < 1e-5
    for number in (1, 5):
        images = torch.randn(number, 3, size, size)
        with torch.no_grad():
            assert_near(run(tmp_path / 'a.onnx', images), model(images)[-1])
    props = {p.key: p.value for p in onnx.load(tmp_path / 'a.onnx').metadata_props}
    assert props['image_size'] == str(size)
    assert props['image_mean'] == '[0.485, 0.456, 0.406]'
    assert [file.name for file in tmp_path.iterdir()] == ['a.onnx']


@pytest.mark.slow
def test_classifier_in_onnx(tmp_path, capsys):
    model = classifier()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'epoch_1.pth')
    run_tool(
        'converters/mmdtm_to_onnx.py',
        tmp_path / 'epoch_1.pth',
        tmp_path / 'a.onnx',
    )
    assert 'logits of (B, 3, 64, 64)' in capsys.readouterr().out
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = model(images, mode='tensor')
    assert_near(run(tmp_path / 'a.onnx', images), expected)


def test_size_that_is_no_multiple(tmp_path):
    with pytest.raises(
        ValueError, match='65 x 65 is not a multiple of the patch size 16'
    ):
        write_onnx(pretrained().state_dict(), tmp_path / 'a.onnx', 65)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('out_type', ['raw', 'featmap'])
def test_exported_program_takes_any_number_of_images(out_type):
    model = fill(DTMViT(arch=ARCH, img_size=64, out_type=out_type))
    batch = {0: torch.export.Dim('batch')}
    program = torch.export.export(
        model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=(batch,)
    )
    images = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        (found,), (expected,) = program.module()(images), model(images)
    torch.testing.assert_close(found, expected)

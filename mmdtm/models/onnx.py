"""A checkpoint of mmdtm as an ONNX file, for any number of images at once."""

import contextlib
import io
from pathlib import Path

import torch
from torch import nn

from mmdtm.io import atomic_write
from mmdtm.io.converters import (
    IMAGE_MEAN,
    IMAGE_STD,
    State,
    backbone_weights,
    describe,
)

from .backbones import DTMViT


class Exportable(nn.Module):
    """A backbone, and the classifier on it if there is one, as weights tell them.

    Args:
        state: State dict of mmdtm.
        img_size: Side of the images in pixels; the position tables are resized where
            it is not that of the training, the default.

    Attributes:
        output: What it gives: of a pre-trained backbone the ``'tokens'``
            (B, 1 + N, C), the class token first; of a fine-tuned one the ``'logits'``
            (B, K), or without a classifier the pooled ``'features'`` (B, C).
        img_size: Side of the images in pixels.

    Raises:
        ValueError: If there is no backbone of mmdtm, the weights do not tell how it
            was built, or the size is not a multiple of the patch's.
    """

    def __init__(self, state: State, img_size: int | None = None) -> None:
        super().__init__()
        weights = backbone_weights(state)
        weights.pop('mask_token', None)
        arch = describe(weights)
        trained_size = arch.pop('img_size')
        self.img_size = img_size or trained_size
        pooled = 'ln2.weight' in weights
        self.backbone = DTMViT(
            in_channels=arch.pop('in_channels'),
            patch_size=arch.pop('patch_size'),
            arch=arch,
            img_size=self.img_size,
            qkv_bias='qv_bias' if 'layers.0.attn.q_bias' in weights else False,
            layer_scale_init_value=0.1 if 'layers.0.gamma_1' in weights else 0,
            out_type='avg_featmap' if pooled else 'raw',
            final_norm='ln1.weight' in weights,
        )
        if 'layers.0.attn.qkv.bias' in weights:
            raise ValueError(
                'The backbone has a bias on the keys (qkv_bias=True), which is not '
                'exported. Export one with qkv_bias="qv_bias", as all configs have it.'
            )
        self.backbone.load_state_dict(weights)
        self.output = 'features' if pooled else 'tokens'
        self.head: nn.Module = nn.Identity()
        if pooled and 'head.fc.weight' in state:
            self.output, head = 'logits', state['head.fc.weight']
            self.head = nn.Linear(head.shape[1], head.shape[0])
            self.head.load_state_dict({'weight': head, 'bias': state['head.fc.bias']})
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (B, 3, H, W), RGB, normalised with ImageNet's mean and std."""
        return self.head(self.backbone(images)[-1])


def write_onnx(state: State, target: str | Path, img_size: int | None = None) -> dict:
    """Write a model for onnxruntime and others that read ONNX.

    The number of images is left open; their size is fixed. Another size than the
    training's resizes the position tables, as the backbone itself does. The file says
    mean, standard deviation, size and torch's version among its metadata.

    Args:
        state: State dict of mmdtm: of a pre-training, or of a classifier.
        target: The file to write; one file, also for ViT-L.
        img_size: Side of the images in pixels; that of the training by default.

    Returns:
        Names of ``input`` and ``output``, ``img_size``; and ``difference``, the largest
        between onnxruntime's and torch's output, relative to the largest output.

    Raises:
        FileExistsError: If ``target`` exists.
        ModuleNotFoundError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If the weights are not mmdtm's, or the size is not a multiple of the
            patch's.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            f'Writing ONNX needs the package {error.name}. Install the three of them '
            "with: pip install 'mmdtm[onnx]'."
        ) from error
    model = Exportable(state, img_size)
    size = model.img_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with atomic_write(target, exist_ok=False) as path:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress
            torch.onnx.export(
                model,
                (images,),
                str(path),
                input_names=['images'],
                output_names=[model.output],
                dynamic_shapes={'images': {0: torch.export.Dim('batch')}},
                dynamo=True,
                external_data=False,
            )
        proto = onnx.load(path)
        about = dict(
            image_mean=str(IMAGE_MEAN), image_std=str(IMAGE_STD), image_size=str(size)
        )
        onnx.helper.set_model_props(proto, about | dict(torch=torch.__version__))
        onnx.save(proto, path)
        # Of another number of images than it was traced with.
        images = torch.cat([images, images.flip(-1)[:1]])
        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        (found,) = session.run(None, {'images': images.numpy()})
        with torch.no_grad():
            expected = model(images)
    difference = (torch.from_numpy(found) - expected).abs().max() / expected.abs().max()
    return dict(
        input='images',
        output=model.output,
        img_size=size,
        difference=float(difference),
    )

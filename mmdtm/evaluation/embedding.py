"""Vectors and patch tokens of a folder of images, by a checkpoint and no teacher."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import Compose
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from mmdtm.datasets._files import list_images
from mmdtm.datasets.transforms.loading import BadImageError
from mmdtm.hub import centre_pipeline
from mmdtm.io import atomic_write
from mmdtm.io.converters import IMAGE_MEAN, IMAGE_STD
from mmdtm.io.weights import read_weights
from mmdtm.models.onnx import Exportable

from .features import pool


class Embedder:
    """What a frozen backbone makes of images.

    Args:
        backbone: Any backbone of mmpretrain or mmdtm, in its model's eval mode.
        extract: From normalised images (B, 3, H, W) to the backbone's outputs.
        img_size: Side of the images in pixels: they are resized, and their centre is
            taken.
        mean: Of the images' channels R, G, B, from 0 to 255.
        std: Likewise.
        tokens: Give the patch tokens instead of one vector for each image.
        device: Where to run.
    """

    def __init__(
        self,
        backbone: Any,
        extract: Callable[[torch.Tensor], Any],
        img_size: int,
        mean: torch.Tensor,
        std: torch.Tensor,
        tokens: bool = False,
        device: str = 'cpu',
    ) -> None:
        self.backbone, self.extract = backbone.to(device), extract
        self.tokens, self.device = tokens, device
        self.mean, self.std = (v.to(device).view(3, 1, 1) for v in (mean, std))
        if tokens and hasattr(backbone, 'out_type'):
            backbone.out_type = 'raw'
        self.pipeline = Compose(
            [
                TRANSFORMS.build({**step, 'type': f'mmpretrain.{step["type"]}'})
                for step in centre_pipeline(img_size)
            ]
        )

    @classmethod
    def from_weights(cls, checkpoint: str | Path, **options: Any) -> Embedder:
        """Of a ``DTMPretrainViT`` or ``DTMViT``, whose weights tell how it was built.

        Args:
            checkpoint: Of a pre-training or a fine-tuning.
            **options: ``tokens`` and ``device``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds something else.
        """
        model = Exportable(read_weights(checkpoint)[0])
        mean, std = (255 * torch.tensor(v) for v in (IMAGE_MEAN, IMAGE_STD))
        backbone = model.backbone
        return cls(backbone, backbone, model.img_size, mean, std, **options)

    @classmethod
    def from_model(cls, model: Any, **options: Any) -> Embedder:
        """Of a model as :func:`mmdtm.get_model` returns it; see ``from_weights``."""
        # Masked models' backbones mask unless told otherwise.
        masked = isinstance(model, BaseSelfSupervisor)
        extract = model.extract_feat if masked else model.backbone
        size = getattr(model.backbone, 'img_size', 224)
        size = size if isinstance(size, int) else size[0]
        norm = model.data_preprocessor
        return cls(model.backbone, extract, size, norm.mean, norm.std, **options)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Run the backbone.

        Args:
            images: (B, 3, H, W) uint8, BGR.

        Returns:
            float32 (B, C): patch tokens averaged and normalised, or what a fine-tuned
            backbone pools itself; with ``tokens`` (B, N, C), row by row.
        """
        images = images.to(self.device).flip(1).float()
        outputs = self.extract((images - self.mean) / self.std)
        extra = getattr(self.backbone, 'num_extra_tokens', 0)
        if self.tokens:
            last = outputs[-1]
            last = last[:, extra:] if last.dim() == 3 else last.flatten(2).mT
            found = last.float()
        else:
            found = pool(outputs, extra)
        return found.cpu().numpy()

    def read(
        self, paths: list[str], batch_size: int = 32, workers: int = 0
    ) -> Iterator[tuple[list[str], np.ndarray | None, list[str]]]:
        """Go through images in batches.

        Yields:
            Paths that could be read, what the backbone makes of them (None if there
            are none), and a message on each image that could not.
        """
        loader: DataLoader = DataLoader(
            _Images(paths, self.pipeline),
            batch_size,
            num_workers=workers,
            collate_fn=list,
        )
        for batch in loader:
            good = [(path, image) for path, image in batch if torch.is_tensor(image)]
            bad = [image for _, image in batch if not torch.is_tensor(image)]
            found = self(torch.stack([image for _, image in good])) if good else None
            yield [path for path, _ in good], found, bad


class _Images(Dataset):
    def __init__(self, paths: list[str], pipeline: Callable) -> None:
        self.paths, self.pipeline = paths, pipeline

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor | str]:
        path = self.paths[index]
        try:
            return path, self.pipeline(dict(img_path=path))['inputs']
        except BadImageError as error:
            return path, str(error)


class Written(NamedTuple):
    """What :func:`write_embeddings` wrote: the array's shape, and the bad images."""

    shape: tuple[int, ...]
    bad: list[str]


def write_embeddings(
    embedder: Embedder,
    folder: str | Path,
    target: str | Path,
    batch_size: int = 32,
    workers: int = 0,
    progress: Callable[[int, list[str]], None] = lambda number, bad: None,
) -> Written:
    """Write an array of all images' vectors or tokens, and their names beside it.

    Rows go to the disk as they come, so that tokens of many images need no memory.

    Args:
        embedder: See there.
        folder: The images, in any tree.
        target: A .npy file. The names, relative to ``folder``, go to the same name with
            .txt: the n-th line is the n-th row's.
        batch_size: Images at a time.
        workers: Processes that read images.
        progress: Called with the number of images of each batch, and the messages on
            those of them that cannot be read, which are left out.

    Raises:
        FileExistsError: If one of the two files exists.
        FileNotFoundError: If there is no image.
        ValueError: If none can be read.
    """
    paths, names, bad = list_images(folder), [], []
    listing = Path(target).with_suffix('.txt')
    with (
        atomic_write(target, exist_ok=False) as part,
        atomic_write(listing, exist_ok=False) as lines,
    ):
        with part.open('wb') as file:
            shape: tuple[int, ...] = ()
            for good, found, messages in embedder.read(paths, batch_size, workers):
                if found is not None:
                    if not shape:
                        shape = found.shape[1:]
                        file.write(_header((len(paths), *shape)))
                    file.write(np.ascontiguousarray(found, '<f4').data)
                names += [Path(path).relative_to(folder).as_posix() for path in good]
                bad += messages
                progress(len(good) + len(messages), messages)
            if not names:
                raise ValueError(
                    f'None of the {len(paths)} images in {folder} can be read, such as '
                    f'{bad[0]}. Restore them, or name another folder.'
                )
            file.seek(0)  # numpy pads it, so that the number of rows may change
            file.write(_header((len(names), *shape)))
        lines.write_text('\n'.join(names) + '\n', encoding='utf-8')
    return Written((len(names), *shape), bad)


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    about = dict(descr='<f4', fortran_order=False, shape=shape)
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()

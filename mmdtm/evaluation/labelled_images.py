"""Class names, labelled image folders, and images that cannot be read."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from mmdtm.datasets._files import list_images
from mmdtm.datasets.image_folder import imagenet_synsets
from mmdtm.datasets.transforms.loading import MAX_PIXELS


class ClassNames:
    """The classes to choose from, and which one a label means.

    Args:
        names: The classes' names as the texts are to call them.
        folders: Another word for each class, as a data set's folders are called
            (ImageNet's wnids); None if there is none.
    """

    def __init__(self, names: list[str], folders: list[str] | None = None) -> None:
        self.names = list(names)
        self._indices: dict[str, int] = {}
        for words in (self.names, folders or []):
            for index, word in enumerate(words):
                self._indices.setdefault(_plain(word), index)

    @classmethod
    def imagenet(cls) -> ClassNames:
        """ImageNet-1K's, as open_clip calls them, with their wnids as folders."""
        return cls(list(open_clip.IMAGENET_CLASSNAMES), list(imagenet_synsets()))

    @classmethod
    def from_file(cls, path: str | Path) -> ClassNames:
        """A list with one class a line, ``NAME`` or ``FOLDER<TAB>NAME``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no class, or one twice.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f'{path}: no such class list. It has one class name a line, or '
                'FOLDER<TAB>NAME.'
            )
        lines = [line.strip() for line in path.read_text('utf-8').splitlines()]
        pairs = [line.rpartition('\t')[::2] for line in lines if line]
        names = [name.strip() for _, name in pairs]
        if not names:
            raise ValueError(f'{path} names no class. Put one name on each line.')
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f'{path} lists classes more than once: {", ".join(twice)}. Keep one '
                'line of each.'
            )
        return cls(names, [folder.strip() or name for folder, name in pairs])

    def __len__(self) -> int:
        return len(self.names)

    def index(self, label: str) -> int:
        """The class that a name or a folder means; case, _ and - do not matter.

        Raises:
            ValueError: If there is none, naming the likeliest.
        """
        found = self._indices.get(_plain(label))
        if found is None:
            near = difflib.get_close_matches(_plain(label), self._indices, n=3)
            hint = f'Did you mean {" or ".join(map(repr, near))}?' if near else ''
            raise ValueError(
                f'{label!r} is none of the {len(self)} classes, by name or by '
                f'folder. {hint or "Name one of them."}'
            )
        return found


def find_images(path: str | Path) -> list[Path]:
    """An image, or all images under a folder, sorted.

    Raises:
        FileNotFoundError: If there is no such path or no image under it.
    """
    path = Path(path)
    return [path] if path.is_file() else [Path(file) for file in list_images(path)]


def label_images(
    images: list[Path], classes: ClassNames, label: str | None = None
) -> tuple[list[tuple[Path, int]], list[str]]:
    """Give every image the class that its folder's name, or ``label``, means.

    Returns:
        (image, class index) pairs, and one message for every folder whose name
        is not a class, its images being left out.
    """
    labelled = []
    left_out: dict[str, tuple[str, int]] = {}  # by word: why, and how many
    for image in images:
        word = label or image.absolute().parent.name
        try:
            labelled.append((image, classes.index(word)))
        except ValueError as error:
            left_out[word] = str(error), left_out.get(word, ('', 0))[1] + 1
    return labelled, [
        f'{count} image(s) left out: {why}' for why, count in left_out.values()
    ]


def read_image(path: str | Path) -> Image.Image:
    """Read an image as RGB, to its end.

    Raises:
        ValueError: If it is not an image, is damaged, or has more than ``MAX_PIXELS``
            pixels, naming the file.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f'{image.width} x {image.height} pixels')
            return image.convert('RGB')
    # Pillow's decoders raise these on damaged data, depending on the format.
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(
            f'{path} cannot be read as an image ({error}). Restore or remove it.'
        ) from error


class LabelledImages(Dataset):
    """Images with labels for a DataLoader, unreadable ones as messages.

    Args:
        items: (image, class index) pairs.
        transform: From a PIL image to a tensor (3, H, W).
    """

    def __init__(
        self, items: list[tuple[Path, int]], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.items = items
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | str:
        path, label = self.items[index]
        try:
            return self.transform(read_image(path)), label
        except ValueError as error:
            return str(error)

    @staticmethod
    def collate(
        samples: list[tuple[Tensor, int] | str],
    ) -> tuple[Tensor | None, Tensor, list[str]]:
        """A batch of what could be read, and the messages about the rest.

        Images (B, 3, H, W), None if B = 0; labels int64 (B,); messages.
        """
        messages = [sample for sample in samples if isinstance(sample, str)]
        good = [sample for sample in samples if not isinstance(sample, str)]
        images = torch.stack([image for image, _ in good]) if good else None
        return images, torch.tensor([label for _, label in good]), messages


def _plain(word: str) -> str:
    """The word without what folder names change."""
    return ' '.join(word.replace('_', ' ').replace('-', ' ').casefold().split())

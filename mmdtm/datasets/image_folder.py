"""Images in class folders, labelled by the folders' names."""

from collections.abc import Sequence
from pathlib import Path

from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from ._files import regular_files
from .bad_images import SkipBadImages

IMAGENET = 'imagenet-1k'


@DATASETS.register_module()
class ImageFolder(SkipBadImages, CustomDataset):
    """``data_root/data_prefix/<class>/*``, the same labels in every split.

    A label is the place of the folder's name in one list of classes that all
    splits share. mmpretrain's ``CustomDataset`` numbers each split's folders
    by themselves, so that a folder more or less shifts all labels behind it,
    without a word.

    Args:
        data_root: Folder of the splits.
        data_prefix: Folder of this split.
        classes: ``'imagenet-1k'``: the 1000 synsets (``n01440764``, ...) in
            their usual order, so that parts of ImageNet keep its labels. None:
            the folders under ``data_root/classes_from``, sorted. Or a list of
            folder names, or the path of a file with one name per line.
        classes_from: The split that names the classes where ``classes`` does
            not.
        **kwargs: Of :class:`SkipBadImages`, and of mmpretrain's ``CustomDataset``.

    Raises:
        FileNotFoundError: If a folder is missing or holds no image.
        ValueError: If a folder is none of the classes.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: str,
        classes: str | Sequence[str] | None = None,
        classes_from: str = 'train',
        **kwargs,
    ) -> None:
        if classes == IMAGENET:
            classes = imagenet_synsets()
        elif classes is None:
            classes = class_folders(Path(data_root, classes_from))
        super().__init__(
            data_root=data_root, data_prefix=data_prefix, classes=classes, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """List the split's images: ``img_path`` and ``gt_label`` each."""
        place = Path(self.img_prefix)
        labels = self.class_to_idx
        folders = class_folders(place)
        unknown = [name for name in folders if name not in labels]
        if unknown:
            raise ValueError(
                f'{place}: {len(unknown)} of {len(folders)} folders are none of the '
                f'{len(labels)} classes (such as {", ".join(self.CLASSES[:3])}): '
                f'{", ".join(unknown[:5])}. Remove them, or set classes of the '
                "dataset: 'imagenet-1k', a list of folder names, or None for the "
                "training split's own folders (and num_classes of the model to match)."
            )
        infos = [
            dict(img_path=path, gt_label=labels[name])
            for name in folders
            for path in regular_files(str(place / name), self.is_valid_file)
        ]
        if not infos:
            raise FileNotFoundError(
                f'{place} has {len(folders)} class folders, but no image in any '
                f'({", ".join(sorted(self.extensions))}). Put them there, or set '
                'data_root of the dataset.'
            )
        return infos


def class_folders(place: Path) -> list[str]:
    """The names of the folders in a split, sorted.

    Raises:
        FileNotFoundError: If there are none.
    """
    folders = (
        sorted(path.name for path in place.iterdir() if path.is_dir())
        if place.is_dir()
        else []
    )
    if not folders:
        raise FileNotFoundError(
            f'{place} {"has no class folders" if place.is_dir() else "is missing"}. '
            'Put the images there as <class>/*, or set data_root (and data_prefix) '
            'of the dataset to where they are.'
        )
    return folders


def imagenet_synsets() -> tuple[str, ...]:
    """ImageNet-1K's 1000 folder names in the order of its labels."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo('imagenet-1k').label_names())

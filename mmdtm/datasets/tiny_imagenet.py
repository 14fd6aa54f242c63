"""Tiny ImageNet, from its official files."""

import hashlib
import math
import os
from collections import defaultdict
from pathlib import Path

from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.registry import DATASETS

from .bad_images import SkipBadImages
from .official import require

SOURCE = 'tiny-imagenet-200.zip of http://cs231n.stanford.edu'


@DATASETS.register_module()
class TinyImageNet(SkipBadImages, BaseDataset):
    """Tiny ImageNet: 200 classes of ImageNet at 64 x 64 pixels, with a box each.

    The files are those of the official archive (Stanford's course CS231n)::

        tiny-imagenet-200
        ├── wnids.txt                      the 200 synsets
        ├── words.txt                      SYNSET<tab>NAME, NAME, ... of all of WordNet
        ├── train/SYNSET/images/SYNSET_0.JPEG ...       500 a class
        ├── train/SYNSET/SYNSET_boxes.txt  FILE<tab>X0<tab>Y0<tab>X1<tab>Y1
        ├── val/images/val_0.JPEG ...      10,000
        └── val/val_annotations.txt        FILE<tab>SYNSET<tab>X0<tab>Y0<tab>X1<tab>Y1

    Labels are the synsets in their sorted order, as those of class folders are. The
    archive's ``test`` has no labels. Loads ``img_path``, ``gt_label`` and ``box``: the
    first and the last column and row of the object, ``(x0, y0, x1, y1)``, in pixels.

    Args:
        data_root: The folder ``tiny-imagenet-200``.
        split: ``'train'`` or ``'val'``.
        share: In (0, 1]. Of each class the share that is used, the same images in
            every run, and all of a smaller share are in a larger one.
        **kwargs: ``max_bad_fraction`` of
            :class:`~mmdtm.datasets.bad_images.SkipBadImages`, and those of
            mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If a list is missing.
        ValueError: If one is not such a list, or an argument is out of its range.
    """

    def __init__(
        self, data_root: str, split: str = 'train', share: float = 1.0, **kwargs
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(
                f"TinyImageNet: split is {split!r}. Give 'train' or 'val'; the "
                "archive's test images have no labels."
            )
        if not 0 < share <= 1:
            raise ValueError(
                f'TinyImageNet: share is {share}. Give a share of the images in (0, 1].'
            )
        self.split, self.share = split, share
        super().__init__(
            ann_file='wnids.txt', data_root=data_root, data_prefix=split, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Read the split's lists into ``img_path``, ``gt_label`` and ``box``."""
        names = class_names(self.data_root)
        self._metainfo.setdefault('classes', tuple(map(names.get, sorted(names))))
        label = {synset: i for i, synset in enumerate(sorted(names))}
        lines = (self._train if self.split == 'train' else self._val)(label)
        by_class = defaultdict(list)
        for path, synset, corners in lines:
            by_class[label[synset]].append(
                dict(img_path=path, gt_label=label[synset], box=corners)
            )
        return [
            info
            for _, infos in sorted(by_class.items())
            for info in (infos if self.share == 1 else choose(infos, self.share))
        ]

    def _train(self, label: dict):
        for synset in label:
            folder = f'{self.img_prefix}/{synset}'
            for line in read_lines(f'{folder}/{synset}_boxes.txt', 5):
                yield f'{folder}/images/{line[0]}', synset, tuple(map(int, line[1:]))

    def _val(self, label: dict):
        path = f'{self.img_prefix}/val_annotations.txt'
        for name, synset, *corners in read_lines(path, 6):
            if synset not in label:
                raise ValueError(
                    f'{path}: {name} is of {synset}, which is not in wnids.txt. Unpack '
                    'the archive again.'
                )
            yield f'{self.img_prefix}/images/{name}', synset, tuple(map(int, corners))


def class_names(root: str | Path) -> dict[str, str]:
    """WordNet's names of the classes by synset: ``'goldfish, Carassius auratus'``.

    Raises:
        FileNotFoundError: If ``wnids.txt`` or ``words.txt`` is missing.
        ValueError: If a class has no name.
    """
    words = require(f'{root}/words.txt', 'Tiny ImageNet', SOURCE)
    names = dict(read_lines(words, 2))
    synsets = [line[0] for line in read_lines(f'{root}/wnids.txt', 1)]
    if unnamed := [synset for synset in synsets if synset not in names]:
        raise ValueError(f'{words} does not name {unnamed[0]}. Unpack the file again.')
    return {synset: names[synset] for synset in synsets}


def read_lines(path: str | Path, columns: int) -> list[list[str]]:
    """Read lines of so many values between tabs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line has another number of values.
    """
    text = require(path, 'Tiny ImageNet', SOURCE).read_text(encoding='utf-8')
    lines = [line.split('\t') for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if len(line) != columns:
            raise ValueError(
                f'{path}: line {number} has {len(line)} values, not {columns}. Unpack '
                'the file again.'
            )
    return lines


def choose(infos: list[dict], share: float) -> list[dict]:
    """Keep a share of one class's images, rounded up, in their order.

    The hash of a file's name decides, so that no seed, library or order of the list
    does.
    """

    def key(info: dict) -> bytes:
        return hashlib.sha256(os.path.basename(info['img_path']).encode()).digest()

    # Rounded before, since 0.07 * 100 is more than 7.
    number = math.ceil(round(share * len(infos), 6))
    kept = {id(info) for info in sorted(infos, key=key)[:number]}
    return [info for info in infos if id(info) in kept]

"""Draws each transfer data set small, in its official layout and file formats.

Every image has one colour, the palette's at its class, so that a test can see in
the pixels which label belongs to it.
"""

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

# RGB; no two channels of a class are alike, so that swapped ones are seen.
PALETTE = [(200, 30, 90), (20, 180, 60), (40, 90, 220), (230, 210, 10)]
SPLITS = {'train': 3, 'test': 2}  # images of each class


def _save(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (40, 32), PALETTE[label]).save(path, quality=98)


def nabirds(root: Path) -> None:
    # Ids as in the original: leaves are 295 and up, 817 has fewer birds than
    # 1010, and "Birds" and "Perching Birds" are no labels but inner nodes.
    leaves = [295, 817, 1000, 1010]
    names = ['Common Eider (Adult male)', 'Oak Titmouse', 'Dark-eyed Junco', 'Veery']
    classes = ['0 Birds', '22 Perching Birds']
    classes += [f'{i} {name}' for i, name in zip(leaves, names, strict=True)]
    images, labels, split = [], [], []
    # Not in the order of the labels.
    for label in (2, 0, 3, 1):
        for part, count in SPLITS.items():
            for n in range(count):
                key = f'0000{label}{n}9e-21dc-4d0c-bfe1-4cae3c85c8{part == "train":02d}'
                file = f'{leaves[label]:04d}/{key.replace("-", "")}.jpg'
                _save(root / 'images' / file, label)
                images.append(f'{key} {file}')
                labels.append(f'{key} {leaves[label]}')
                split.append(f'{key} {int(part == "train")}')
    for name, lines in dict(
        images=images,
        image_class_labels=labels,
        train_test_split=split,
        classes=classes,
    ).items():
        (root / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def cub(root: Path) -> None:
    folders = ['001.Black_footed_Albatross', '002.Laysan_Albatross']
    folders += ['003.Sooty_Albatross', '004.Groove_billed_Ani']
    images, labels, split = [], [], []
    for label, folder in enumerate(folders):
        for part, count in SPLITS.items():
            for n in range(count):
                file = f'{folder}/{folder[4:]}_{n:04d}_{part}.jpg'
                _save(root / 'images' / file, label)
                index = len(images) + 1
                images.append(f'{index} {file}')
                labels.append(f'{index} {label + 1}')
                split.append(f'{index} {int(part == "train")}')
    for name, lines in dict(
        images=images, image_class_labels=labels, train_test_split=split
    ).items():
        (root / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def stanford_dogs(root: Path) -> None:
    folders = ['n02085620-Chihuahua', 'n02085782-Japanese_spaniel']
    folders += ['n02085936-Maltese_dog', 'n02086079-Pekinese']
    for part, count in SPLITS.items():
        files, labels = [], []
        for label, folder in enumerate(folders):
            for n in range(count):
                offset = 10 * (part == 'test')
                file = f'{folder}/{folder[:9]}_{n + offset}.jpg'
                _save(root / 'Images' / file, label)
                files.append(file)
                labels.append(label + 1)
        cells = np.empty((len(files), 1), dtype=object)  # a MATLAB cell array
        cells[:, 0] = files
        notes = np.empty((len(files), 1), dtype=object)
        notes[:, 0] = [file[:-4] for file in files]
        savemat(
            root / f'{part}_list.mat',
            dict(
                file_list=cells,
                annotation_list=notes,
                labels=np.array(labels, dtype=np.uint8)[:, None],
            ),
        )


def _inaturalist(root: Path, parts: dict[str, tuple[str, str]]) -> None:
    kinds = ['Plantae/7477', 'Insecta/10', 'Aves/3', 'Fungi/512']
    for part, (annotation_file, folder) in parts.items():
        images, annotations = [], []
        for label, kind in enumerate(kinds):
            for n in range(SPLITS[part]):
                file = f'{folder}/{kind}/{part}{label}{n}.jpg'
                _save(root / file, label)
                index = 1000 + len(images)
                images.append(
                    dict(
                        id=index,
                        file_name=file,
                        width=40,
                        height=32,
                        license=1,
                        rights_holder='someone',
                    )
                )
                annotations.append(dict(id=index, image_id=index, category_id=label))
        categories = [
            dict(id=i, name=kind, supercategory=kind.split('/')[0])
            for i, kind in enumerate(kinds)
        ]
        (root / annotation_file).write_text(
            json.dumps(
                dict(
                    info=dict(description='miniature'),
                    images=images[::-1],
                    licenses=[],
                    annotations=annotations,
                    categories=categories[::-1],
                )
            )
        )


def inat2018(root: Path, year: int = 2018) -> None:
    folder = f'train_val{year}'
    files = {
        'train': (f'train{year}.json', folder),
        'test': (f'val{year}.json', folder),
    }
    _inaturalist(root, files)


def inat2019(root: Path) -> None:
    inat2018(root, 2019)


def inat2021(root: Path) -> None:
    _inaturalist(
        root, dict(train=('train_mini.json', 'train_mini'), test=('val.json', 'val'))
    )


def _cifar_batch(count: int, label_key: str, **more) -> dict:
    labels = [label for label in range(4) for _ in range(count)]
    rows = [np.repeat(PALETTE[label], 1024) for label in labels]
    return {
        **more,
        label_key: labels,
        'data': np.array(rows, dtype=np.uint8),
        'filenames': [f'{i}.png' for i in range(len(labels))],
    }


def cifar10(root: Path) -> None:
    folder = root / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    for i in range(1, 6):
        batch = _cifar_batch(1, 'labels', batch_label=f'training batch {i} of 5')
        (folder / f'data_batch_{i}').write_bytes(pickle.dumps(batch, 2))
    batch = _cifar_batch(2, 'labels', batch_label='testing batch 1 of 1')
    (folder / 'test_batch').write_bytes(pickle.dumps(batch, 2))


def cifar100(root: Path) -> None:
    folder = root / 'cifar-100-python'
    folder.mkdir(parents=True)
    for part, count in SPLITS.items():
        batch = _cifar_batch(count, 'fine_labels', coarse_labels=[19] * 4 * count)
        (folder / part).write_bytes(pickle.dumps(batch, 2))


# Config, its miniature, and the images of its training and test split.
MINIATURES = {
    'dtm_vit-b_100e_nabirds': (nabirds, 12, 8),
    'dtm_vit-b_100e_cub200': (cub, 12, 8),
    'dtm_vit-b_100e_stanford-dogs': (stanford_dogs, 12, 8),
    'dtm_vit-b_100e_cifar10': (cifar10, 20, 8),
    'dtm_vit-b_100e_cifar100': (cifar100, 12, 8),
    'dtm_vit-b_100e_inat2018': (inat2018, 12, 8),
    'dtm_vit-b_100e_inat2019': (inat2019, 12, 8),
    'dtm_vit-b_100e_inat2021-mini': (inat2021, 12, 8),
}

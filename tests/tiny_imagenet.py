"""Draws Tiny ImageNet small, in its official layout and file formats."""

from pathlib import Path

import numpy as np
from PIL import Image

# Not in sorted order, as in the archive.
SYNSETS = {
    'n02124075': 'Egyptian cat',
    'n01443537': 'goldfish, Carassius auratus',
    'n04067472': 'reel',
    'n07768694': 'pomegranate',
}
COLOURS = [(200, 60, 40), (40, 180, 60), (60, 80, 220), (220, 200, 40)]


def draw_tiny_imagenet(root: Path, train: int = 6, val: int = 3) -> Path:
    """Images with a box in the class's colour on dark noise.

    Args:
        root: The folder ``tiny-imagenet-200``.
        train: Images of each class.
        val: Likewise.
    """
    noise = np.random.default_rng(0)

    def draw(path: Path, label: int) -> str:
        x0, y0 = noise.integers(0, 32, 2)
        x1, y1 = noise.integers(40, 64, 2)
        pixels = noise.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        pixels[y0 : y1 + 1, x0 : x1 + 1] = COLOURS[label]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)
        return f'{x0}\t{y0}\t{x1}\t{y1}'

    lines = []
    for label, synset in enumerate(SYNSETS):
        folder = root / 'train' / synset
        boxes = [
            f'{synset}_{i}.JPEG\t' + draw(folder / f'images/{synset}_{i}.JPEG', label)
            for i in range(train)
        ]
        (folder / f'{synset}_boxes.txt').write_text('\n'.join(boxes) + '\n')
        for i in range(val):
            name = f'val_{4 * i + 3 - label}.JPEG'
            box = draw(root / 'val/images' / name, label)
            lines.append(f'{name}\t{synset}\t{box}')
    (root / 'val/val_annotations.txt').write_text('\n'.join(lines) + '\n')
    (root / 'wnids.txt').write_text('\n'.join(SYNSETS) + '\n')
    words = [f'{synset}\t{name}' for synset, name in SYNSETS.items()]
    (root / 'words.txt').write_text('\n'.join(['n00001740\tentity', *words]) + '\n')
    return root

"""Masks that mmsegmentation would read as something else."""

import numpy as np
import pytest
from PIL import Image

from mmdtm.datasets.transforms import CheckSegLabels


def read(path, reduce_zero_label: bool = True, num_classes: int = 150) -> dict:
    results = dict(
        seg_map_path=str(path),
        reduce_zero_label=reduce_zero_label,
        label_map=None,
        seg_fields=[],
    )
    # Importable once mmdtm has mended the stack.
    from mmseg.datasets.transforms import LoadAnnotations

    results = LoadAnnotations().transform(results)
    return CheckSegLabels(num_classes).transform(results)


def test_classes_and_ignored_pixels_pass(tmp_path):
    mask = np.array([[0, 1], [150, 255]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / 'a.png')
    assert read(tmp_path / 'a.png')['gt_seg_map'].tolist() == [[255, 0], [149, 255]]


def test_values_beyond_the_classes_are_named(tmp_path):
    mask = np.array([[0, 151, 151, 253]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / 'a.png')
    with pytest.raises(
        ValueError, match=r'a\.png has.*\[151, 253\] in 3 pixels.*1 to 150, 0 \(ignored'
    ):
        read(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=r'\[151, 253\].*0 to 149 and 255'):
        read(tmp_path / 'a.png', reduce_zero_label=False)


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    mask = np.array([[1, 257]], dtype=np.uint16)  # 257 would become 1
    Image.fromarray(mask).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=r'a\.png is not a mask of 8 bits.*mode is I'):
        read(tmp_path / 'a.png')


def test_colours_are_no_classes(tmp_path):
    Image.new('RGB', (4, 4), (120, 120, 120)).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='mode is RGB'):
        read(tmp_path / 'a.png')

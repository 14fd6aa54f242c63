"""What can be wrong with data sets before any image is read."""

from pathlib import Path


def place(dataset) -> str:
    """Where a data set's images are, for messages."""
    prefix = getattr(dataset, 'data_prefix', None) or {}
    return str(prefix.get('img_path') or getattr(dataset, 'data_root', dataset))


def check_not_empty(dataset, split: str) -> None:
    """Raise if a split has no image.

    Raises:
        ValueError: Names the folder and the way out.
    """
    if len(dataset):
        return
    suffix = getattr(dataset, 'img_suffix', None)
    raise ValueError(
        f'The {split} split is empty: no {suffix or "image"} file in '
        f'{place(dataset)}. Set {split}_dataloader.dataset.data_root (and data_prefix) '
        'to where the images are' + (', or img_suffix to theirs.' if suffix else '.')
    )


def check_pairs(dataset) -> None:
    """Raise if an image has no mask or a mask no image.

    Args:
        dataset: An mmsegmentation data set.

    Raises:
        FileNotFoundError: Names the first such files and the way out.
    """
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    masks = {Path(info['seg_map_path']) for info in infos}
    # One listing per folder, rather than one question per file.
    there = {
        path
        for folder in {mask.parent for mask in masks}
        if folder.is_dir()
        for path in folder.glob(f'*{dataset.seg_map_suffix}')
    }
    without = [i for i in infos if Path(i['seg_map_path']) not in there]
    if without:
        first = without[0]
        raise FileNotFoundError(
            f'{len(without)} of {len(infos)} images have no mask: '
            f'{first["img_path"]} needs {first["seg_map_path"]}. Add the masks, remove '
            'the images, or set data_prefix.seg_map_path and seg_map_suffix of the '
            'dataset.'
        )
    unused = sorted(there - masks)
    if unused and not dataset.ann_file:  # a list of files may leave some out
        raise FileNotFoundError(
            f'{len(unused)} masks have no image: {unused[0]} has no {dataset.img_suffix} '
            f'file in {place(dataset)}. Add the images, remove the masks, or list the '
            "wanted files in the dataset's ann_file."
        )


def check_same_classes(first, second) -> None:
    """Raise unless two data sets have the same classes in the same order.

    Raises:
        ValueError: Names the classes that only one of them has.
    """
    ours, theirs = (dataset.metainfo.get('classes') for dataset in (first, second))
    if ours is None or theirs is None or list(ours) == list(theirs):
        return
    raise ValueError(
        f'{place(first)} and {place(second)} have different classes, so that their '
        f'labels mean different things: {difference(ours, theirs)} Give both the '
        'same class folders, or the same list as classes.'
    )


def difference(ours, theirs) -> str:
    """What two lists of classes do not share, in words."""
    only_ours = [name for name in ours if name not in set(theirs)]
    only_theirs = [name for name in theirs if name not in set(ours)]
    if not only_ours and not only_theirs:
        return 'the same names, in another order.'
    return (
        f'{len(ours)} and {len(theirs)}; only the first has {only_ours[:5] or "none"}, '
        f'only the second {only_theirs[:5] or "none"}.'
    )

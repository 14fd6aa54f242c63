"""Whether labels of different data sets mean the same."""


def place(dataset) -> str:
    """Where a data set's images are, for messages."""
    prefix = getattr(dataset, 'data_prefix', None) or {}
    return str(prefix.get('img_path') or getattr(dataset, 'data_root', dataset))


def check_same_classes(first, second) -> None:
    """Raise unless two data sets have the same classes in the same order.

    Raises:
        ValueError: If not; names the classes that only one of them has.
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

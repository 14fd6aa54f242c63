"""Data that do not fit each other, the model or the checkpoint."""

from types import SimpleNamespace

import pytest
from torch import nn

from mmdtm.engine.hooks import DataCheckHook


def dataset(classes, place='data/train'):
    return SimpleNamespace(
        metainfo=dict(classes=classes), data_prefix=dict(img_path=place)
    )


def run(train=None, val=None, test=None, num_classes: int = 3):
    model = nn.Module()
    model.head = nn.Module()
    model.head.num_classes = num_classes
    loops = {
        f'_{split}_loop': dict(type='Unbuilt')
        if data is None
        else SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
        for split, data in dict(train=train, val=val, test=test).items()
    }
    return SimpleNamespace(model=model, **loops)


ABC = ['ant', 'bee', 'cow']


def test_what_fits_passes():
    DataCheckHook().before_run(run(dataset(ABC), dataset(tuple(ABC))))
    DataCheckHook().before_run(run(dataset(None)))  # unlabelled
    DataCheckHook().before_run(run(test=dataset(ABC)))


def test_other_classes_in_another_split_are_named():
    val = dataset(['ant', 'bee', 'elk'], 'data/val')
    with pytest.raises(ValueError, match=r"data/train and data/val.*'cow'.*'elk'"):
        DataCheckHook().before_run(run(dataset(ABC), val))


def test_classes_in_another_order_are_refused():
    with pytest.raises(ValueError, match='in another order'):
        DataCheckHook().before_run(run(dataset(ABC), dataset(ABC[::-1], 'data/val')))


def test_another_number_of_classes_than_the_heads_is_refused():
    with pytest.raises(
        ValueError,
        match=r'data/val have 3 .*model\.head 4\. Set model\.head\.num_c.*=3',
    ):
        DataCheckHook().before_run(run(val=dataset(ABC, 'data/val'), num_classes=4))


def test_a_checkpoint_of_other_classes_is_refused_in_tests_alone():
    hook, runner = DataCheckHook(), run(test=dataset(ABC, 'data/val'))
    hook.after_load_checkpoint(runner, {'meta': {'dataset_meta': {'classes': ABC}}})
    hook.after_load_checkpoint(runner, {'meta': {}})  # says nothing about classes
    hook.after_load_checkpoint(runner, {})
    other = {'meta': {'dataset_meta': {'classes': ['ant', 'bee', 'elk']}}}
    with pytest.raises(ValueError, match=r"data/val.*'elk'.*'cow'"):
        hook.after_load_checkpoint(runner, other)
    # A pre-trained or resumed checkpoint in training is not compared.
    hook.after_load_checkpoint(run(train=dataset(ABC)), other)

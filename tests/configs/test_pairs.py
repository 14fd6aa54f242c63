"""Configs that are compared differ in what they claim, and in nothing else."""

import pytest
from made_data import load
from mmpretrain.registry import MODELS

import mmdtm.plugin  # noqa: F401

MORPHING = ['model.morphing']
TEACHER = ['model.target_generator']
EPOCHS = ['param_scheduler', 'train_cfg.max_epochs']

# One config, the other, and all that may differ: keys that begin so, each of
# which has to occur.
PAIRS = [
    ('dtm_vit-s_300e', 'baseline/token-wise_vit-s_300e', MORPHING),
    ('dtm_vit-b_300e', 'baseline/token-wise_vit-b_300e', MORPHING),
    ('dtm_vit-l_300e', 'baseline/token-wise_vit-l_300e', MORPHING),
    ('dtm_vit-b_300e', 'ablation/dtm_vit-b_100e', EPOCHS),
    ('applicability/mae_vit-b_100e', 'applicability/mae-dtm_vit-b_100e', ['model.dtm']),
    (
        'applicability/beitv2_vit-b_100e',
        'applicability/beitv2-dtm_vit-b_100e',
        ['model.dtm'],
    ),
    (
        'applicability/byol_vit-b_100e',
        'applicability/byol-dtm_vit-b_100e',
        ['model.dtm'],
    ),
    (
        'finetune/dtm_vit-b_100e_in1k',
        'applicability/finetune_vit-b_100e_in1k',
        ['model.backbone'],
    ),
    *(
        ('ablation/dtm_vit-b_100e', f'ablation/{name}_vit-b_100e', keys)
        for name, keys in {
            'token-wise': MORPHING,
            'fixed-98': [
                'model.morphing.levels',
                'model.morphing.num_morphed',
                'model.morphing.num_iters',
            ],
            'slip-dtm': TEACHER,
            'slip-token-wise': TEACHER + MORPHING,
            'dinov2-dtm': TEACHER,
            'l1': ['model.head.loss.distance'],
            'l2': ['model.head.loss.distance'],
            'smooth-l1': ['model.head.loss.distance', 'model.head.loss.beta'],
            'kmeans': MORPHING,
            'dpc-knn': MORPHING,
            'layer-wise-kmeans': MORPHING
            + [
                'model.target_generator.type',
                'model.target_generator.merging',
                'model.target_generator.num_clusters',
                'model.target_generator.num_iters',
            ],
        }.items()
    ),
    *(
        ('distillation/dtm_vit-b_50e', f'distillation/{name}_vit-b_50e', keys)
        for name, keys in {
            'token-wise': MORPHING,
            'downsampled': MORPHING,
            'layer-wise-bipartite': MORPHING
            + [
                'model.target_generator.type',
                'model.target_generator.merging',
                'model.target_generator.num_merged',
                'model.target_generator.match_keys',
                'model.target_generator.merge_before_mlp',
                'model.target_generator.proportional_attention',
            ],
        }.items()
    ),
    (
        'ablation/dtm_vit-b_100e',
        'distillation/dtm_vit-b_50e',
        EPOCHS
        + [
            'model.type',
            'model.backbone.type',
            'model.backbone.out_type',
            'model.backbone.final_norm',
            'train_dataloader.dataset.pipeline.4',  # no mask
            'train_dataloader.dataset.pipeline.5',
        ],
    ),
]


def flatten(node, prefix: str = '') -> dict:
    """Every leaf of a config by its path."""
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return {prefix: node}
    leaves = {}
    for key, value in items:
        leaves |= flatten(value, f'{prefix}.{key}' if prefix else str(key))
    return leaves


def settings(name: str) -> dict:
    """The leaves of what a run reads; helper variables of the file left out."""
    cfg = load(name)
    helpers = ('train_pipeline', 'view_1', 'view_2')
    return flatten({k: v for k, v in cfg.items() if k not in helpers})


@pytest.mark.parametrize(('one', 'other', 'keys'), PAIRS)
def test_pair(one, other, keys):
    one, other = settings(one), settings(other)
    missing = object()
    differing = [
        key for key in one | other if one.get(key, missing) != other.get(key, missing)
    ]
    for key in keys:
        assert [k for k in differing if k.startswith(key)], f'{key} is the same'
    unclaimed = [k for k in differing if not k.startswith(tuple(keys))]
    assert not unclaimed, unclaimed


@pytest.mark.parametrize('framework', ['mae', 'beitv2', 'byol'])
def test_the_frameworks_morph_as_dtm_does(framework):
    model = load(f'applicability/{framework}-dtm_vit-b_100e').model
    ours = MODELS.build(model.dtm.morphing)
    paper = MODELS.build(load('dtm_vit-b_300e').model.morphing)
    drawn = ('levels', 'num_morphed', 'num_iters', 'partition', 'reach_num_morphed')
    assert [getattr(ours, name) for name in drawn] == [
        getattr(paper, name) for name in drawn
    ]


def test_numbers_of_tables_2_8_and_11():
    fixed = load('ablation/fixed-98_vit-b_100e').model.morphing
    assert fixed.num_morphed == 98  # table 8, of 196
    kmeans = load('ablation/layer-wise-kmeans_vit-b_100e').model.target_generator
    assert (kmeans.num_clusters, kmeans.num_iters) == (98, 5)  # table 11: constant
    bipartite = load('distillation/layer-wise-bipartite_vit-b_50e').model
    assert bipartite.target_generator.num_merged == 8  # ToMe's r is constant
    kmeans = load('ablation/kmeans_vit-b_100e').model.morphing
    dtm = load('dtm_vit-b_300e').model.morphing
    assert kmeans.num_iters == dtm.num_iters and kmeans.levels == dtm.levels
    smooth = load('ablation/smooth-l1_vit-b_100e').model.head.loss
    release = load('release/dtm_vit-b_300e').model.head.loss
    assert smooth.beta == release.beta == 2
    for name in ('token-wise', 'downsampled', 'layer-wise-bipartite', 'dtm'):
        assert load(f'distillation/{name}_vit-b_50e').train_cfg.max_epochs == 50
    assert load('linear_probe/dtm_vit-b_50e_in1k').train_cfg.max_epochs == 50
    for name in ('mae', 'mae-dtm', 'beitv2', 'beitv2-dtm', 'byol', 'byol-dtm'):
        cfg = load(f'applicability/{name}_vit-b_100e')
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 100

"""Configs that are compared differ in what they claim, and in nothing else."""

import pytest
from made_data import CONFIGS, load, rates
from mmpretrain.registry import MODELS

import mmdtm.plugin  # noqa: F401

MORPHING = ['model.morphing']
TEACHER = ['model.target_generator']
EPOCHS = ['train_cfg.max_epochs']
TOY = '../examples/toy/configs'
LAYER_WISE = [*MORPHING, 'model.target_generator.']

# One config, the other, and all that may differ: keys that begin so, each of
# which has to occur.
PAIRS = [
    *(
        (f'dtm_vit-{size}_300e', f'{other}_vit-{size}_300e', keys)
        for size in 'sbl'
        for other, keys in {
            'baseline/token-wise': MORPHING,
            'slip/slip-dtm': TEACHER,
        }.items()
    ),
    (f'{TOY}/dtm_vit-toy', f'{TOY}/token-wise_vit-toy', MORPHING),
    ('dtm_vit-b_300e', 'ablation/dtm_vit-b_100e', EPOCHS),
    *(
        (
            f'applicability/{framework}_vit-b_100e',
            f'applicability/{framework}-dtm_vit-b_100e',
            ['model.dtm'],
        )
        for framework in ('mae', 'beitv2', 'byol')
    ),
    (
        'finetune/dtm_vit-b_100e_in1k',
        'applicability/finetune_vit-b_100e_in1k',
        ['model.backbone'],
    ),
    *(
        (
            f'slip/slip-dtm_vit-{size}_300e',
            f'slip/slip-token-wise_vit-{size}_300e',
            MORPHING,
        )
        for size in 'sbl'
    ),
    *(
        ('ablation/dtm_vit-b_100e', f'{name}_vit-b_100e', keys)
        for name, keys in {
            'ablation/token-wise': MORPHING,
            'ablation/l1': ['model.head.loss.distance'],
            'ablation/l2': ['model.head.loss.distance'],
            'ablation/smooth-l1': ['model.head.loss.distance', 'model.head.loss.beta'],
            'beyond/dinov2-dtm': TEACHER,
            'beyond/clip-dinov2-dtm': ['model.type', 'model.more_teachers'],
            'beyond/dpc-knn': MORPHING,
        }.items()
    ),
    *(
        ('dtm_vit-b_300e', f'ablation/{name}_vit-b_300e', keys)
        for name, keys in {
            'fixed-98': [
                'model.morphing.levels',
                'model.morphing.num_morphed',
                'model.morphing.num_iters',
            ],
            'kmeans': MORPHING,
            'layer-wise-kmeans': LAYER_WISE,
        }.items()
    ),
    *(
        ('distillation/dtm_vit-b_50e', f'distillation/{name}_vit-b_50e', keys)
        for name, keys in {
            'token-wise': MORPHING,
            'downsampled': MORPHING,
            'layer-wise-bipartite': LAYER_WISE,
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
            'train_dataloader.dataset.pipeline.3',  # no mask
            'train_dataloader.dataset.pipeline.4',
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
    helpers = ('train_pipeline', 'view_1', 'view_2', 'warm_up', 'cosine')
    return flatten({k: v for k, v in cfg.items() if k not in helpers})


@pytest.mark.parametrize(('one', 'other', 'keys'), PAIRS)
def test_a_pair_differs_in_what_it_claims_alone(one, other, keys):
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
    fixed = load('ablation/fixed-98_vit-b_300e').model.morphing
    assert fixed.num_morphed == 98  # table 8, of 196
    kmeans = load('ablation/layer-wise-kmeans_vit-b_300e').model.target_generator
    assert (kmeans.num_clusters, kmeans.num_iters) == (98, 5)  # table 11: constant
    bipartite = load('distillation/layer-wise-bipartite_vit-b_50e').model
    assert bipartite.target_generator.num_merged == 8  # ToMe's r is constant
    kmeans = load('ablation/kmeans_vit-b_300e').model.morphing
    dtm = load('dtm_vit-b_300e').model.morphing
    assert kmeans.num_iters == dtm.num_iters and kmeans.levels == dtm.levels
    smooth = load('ablation/smooth-l1_vit-b_100e').model.head.loss
    release = load('release/dtm_vit-b_300e').model.head.loss
    assert smooth.beta == release.beta == 2


@pytest.mark.parametrize('framework', ['mae', 'byol'])
def test_mae_and_byol_fall_to_zero_unclipped(framework):
    """As MAE, BYOL and MoCo v3; 10 epochs of warm-up in 100 (table 3)."""
    cfg = load(f'applicability/{framework}_vit-b_100e')
    lr = rates(cfg, [6e-4])[:, 0]
    assert len(lr) == 1001 and lr.argmax() in (99, 100)
    assert lr.max() == pytest.approx(6e-4) and lr[-1] < 1e-8
    assert cfg.optim_wrapper.clip_grad is None


# Section 5.5, appendices B and C, tables 2, 3, 4, 8, 9, 10.
@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('[!_]*/*0e.py')) + sorted(CONFIGS.glob('*.py'))
)
def test_the_name_says_the_length(path):
    cfg = load(path.with_suffix(''))
    assert path.stem.endswith(f'_{cfg.train_cfg.max_epochs}e')

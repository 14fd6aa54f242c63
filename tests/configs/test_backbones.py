"""configs/backbones/: each student pre-trained, fine-tuned, segmented and tested."""

import warnings
from pathlib import Path

import pytest
import torch
from made_data import CONFIGS
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.launch import build_runner
from mmdtm.report.cards import read_card
from mmdtm.smoke import shrink

FOLDER = CONFIGS / 'backbones'
FAMILIES = [
    path.stem.removeprefix('dtm_').removesuffix('_300e')
    for path in sorted(FOLDER.glob('dtm_*'))
]
# Norms of what pre-training does not have: pooled features, earlier stages.
FRESH = ('ln2.', 'network.fc_norm.', 'norm0.', 'norm1.', 'norm2.')


def files(family: str) -> tuple[Path, Path, Path]:
    return (
        FOLDER / f'dtm_{family}_300e.py',
        FOLDER / f'finetune_{family}_300e_in1k.py',
        FOLDER / f'upernet_{family}_160k_ade20k-512x512.py',
    )


def test_there_are_five_families_with_three_configs_each():
    names = ['convnext-t', 'deit3-s', 'eva02-s', 'swin-t', 'vit-s-reg4']
    assert names == FAMILIES
    everything = {path for family in FAMILIES for path in files(family)}
    assert everything == set(FOLDER.glob('*.py'))


@pytest.mark.parametrize('family', FAMILIES)
def test_cards_tell_the_papers_numbers_from_the_familys(family):
    for path, table in zip(files(family), ('12', '13', '14'), strict=True):
        card = read_card(path)
        assert card.beyond and card.fields['Own']
        assert card.fields['Carried'].startswith(f"table {table}'s")


def small(path: Path, made: Path, work_dir: Path, checkpoint: Path | None = None):
    """A runner of a config made small."""
    cfg = Config.fromfile(path)
    if checkpoint is not None:
        cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    cfg = shrink(cfg, made)
    assert checkpoint is None or cfg.model.backbone.init_cfg, 'the start is forgotten'
    cfg.update(work_dir=str(work_dir), launcher='none')
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return build_runner(cfg)


def train(runner) -> Path:
    """Its last checkpoint; each parameter has had a gradient."""
    wanted = {name for name, p in runner.model.named_parameters() if p.requires_grad}
    seen: set[str] = set()
    for name, parameter in runner.model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda _, name=name: seen.add(name)
            )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        runner.train()
    assert runner.iter == 2 and wanted == seen
    return Path(runner.work_dir, f'{"epoch_1" if runner.epoch else "iter_2"}.pth')


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_from_pre_training_to_the_test_of_what_follows(
    family, tmp_path, tmp_path_factory
):
    made = tmp_path_factory.getbasetemp() / 'made-for-backbones'
    first, *followers = files(family)
    pretrained = train(small(first, made, tmp_path / 'dtm'))
    weights = torch.load(pretrained, weights_only=False)['state_dict']
    for path in followers:
        runner = small(path, made, tmp_path / path.stem, pretrained)
        runner.model.init_weights()
        for name, value in runner.model.backbone.named_parameters():
            if name.startswith(FRESH):
                continue
            assert torch.equal(value, weights[f'backbone.{name}']), name
        last = train(runner)
        check_rates(runner)
        runner = small(path, made, tmp_path / f'{path.stem}_test', pretrained)
        runner._load_from = str(last)
        metrics = runner.test()
        (score,) = (metrics[n] for n in ('accuracy/top1', 'mIoU') if n in metrics)
        assert 0 <= score <= 100


def check_rates(runner) -> None:
    """They rise from the patches through the layers to the head."""
    base = runner.cfg.optim_wrapper.optimizer.lr
    decay = runner.cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    rates = {
        id(parameter): group['initial_lr']
        for group in runner.optim_wrapper.param_groups
        for parameter in group['params']
    }
    backbone = runner.model.backbone
    exponents = {}
    for name, parameter in backbone.named_parameters():
        depth, depths = backbone.get_layer_depth(name)
        exponents[name] = depths - 1 - depth
        expected = base * decay ** exponents[name]
        assert rates[id(parameter)] == pytest.approx(expected), name
    embedding = [
        n for n in exponents if 'patch_embed' in n or 'downsample_layers.0' in n
    ]
    assert {exponents[name] for name in embedding} == {max(exponents.values())}
    assert len(set(exponents.values())) >= 5  # patches, and 4 layers or stages
    rest = set(runner.model.parameters()) - set(backbone.parameters())
    assert rest and {rates[id(parameter)] for parameter in rest} == {base}


@pytest.mark.parametrize('family', FAMILIES)
def test_segmentation_has_a_pyramid_or_four_stages(family, fast_init):
    model = Config.fromfile(files(family)[2]).model
    widths = model.decode_head.in_channels
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = MODELS.build(model.backbone)
        outputs = backbone(torch.zeros(1, 3, 64, 64))
        assert [output.shape[1] for output in outputs] == widths
        sides = [output.shape[-1] for output in outputs]
        if model.neck is None:
            assert sides == [16, 8, 4, 2] and widths == [96, 192, 384, 768]
        else:
            assert sides == [4, 4, 4, 4] and model.neck.type == 'Feature2Pyramid'
        assert model.auxiliary_head.in_channels == widths[2] == 384


def test_a_start_that_does_not_fit_is_refused(tmp_path):
    """mmpretrain's own classes would log what they lack, and train on."""
    made = tmp_path / 'made'
    deit, swin = files('deit3-s')[1], files('swin-t')[1]
    models = {c: small(c, made, tmp_path / 'refused').model for c in (deit, swin)}
    backbone = models[deit].backbone
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    lacking = {k: v for k, v in state.items() if 'layers.3.' not in k}
    other = dict(state, **{'backbone.ln2.weight': torch.zeros(7)})
    cases = [
        (deit, '', 'no checkpoint to start from'),
        (deit, lacking, 'VisionTransformer.*the checkpoint lacks layers.3.ln1.weight'),
        (deit, other, r'another size: ln2.weight is \(7,\), here \(48,\)'),
        (swin, state, 'SwinTransformer.*lacks patch_embed.norm.weight'),
        (swin, dict(weight=torch.zeros(1)), "no parameter's name starts with"),
    ]
    for config, weights, message in cases:
        path = tmp_path / 'start.pth' if weights else ''
        if weights:
            torch.save(dict(state_dict=weights), path)
        models[config].backbone.init_cfg = dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.'
        )
        with pytest.raises(ValueError, match=message):
            models[config].init_weights()

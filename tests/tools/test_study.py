"""The study on Tiny ImageNet: its teacher, its probes, its plan, what is drawn."""

import json
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from scipy.stats import t as student
from tiny_imagenet import SYNSETS, draw_tiny_imagenet

from mmdtm.evaluation.box_probe import box_probe, patches_in_boxes
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.report import build_report

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools/study'))
import probe_student  # noqa: E402
import run_study as study  # noqa: E402
import study_results as results  # noqa: E402
import train_teacher  # noqa: E402

TINY = dict(
    embed_dim=16,
    vision_cfg=dict(
        image_size=64, patch_size=8, width=16, layers=1, head_width=8,
        pos_embed_type='sin_cos_2d',
    ),
    text_cfg=dict(context_length=24, vocab_size=49408, width=8, heads=1, layers=1),
)  # fmt: skip


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return draw_tiny_imagenet(tmp_path_factory.mktemp('data') / 'tiny-imagenet-200')


def test_a_batch_has_no_class_twice_and_depends_on_the_step_alone():
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 8, 8)
    labels = torch.arange(12) % 4
    names = [[f'c{i}', f'd{i}'] for i in range(4)]
    seen = []

    def tokenizer(texts):
        seen.extend(texts)
        numbers = [[int(text.split(' ')[-1].strip('.')[1:])] for text in texts]
        return torch.tensor(numbers)

    draw = train_teacher.Pairs(images, labels, names, tokenizer, 3, seed=1)
    assert len(seen) == len(set(seen)) == 4 * 2 * len(train_teacher.TEMPLATES)
    used = set()
    for step in range(20):
        batch, text = draw(step)
        mean = torch.tensor(train_teacher.small_clip.MEAN)
        std = torch.tensor(train_teacher.small_clip.STD)
        shown = (255 * (batch.mean((2, 3)) * std + mean))[:, 0].round().long()
        assert len(shown) == 3
        assert (labels[shown] == text[:, 0]).all(), 'a caption of another class'
        assert len(set(text[:, 0].tolist())) == 3
        used |= set(shown.tolist())
        again = draw(step)
        assert torch.equal(batch, again[0]) and torch.equal(text, again[1])
    assert used == set(range(12))


def test_the_trained_folder_is_a_teacher(root, tmp_path):
    args = Namespace(
        steps=3, batch_size=4, lr=1e-3, seed=0, bfloat16=False, device='cpu'
    )
    values = train_teacher.train(root, tmp_path, args, TINY)
    assert len(values['losses']) == 3 and values['chance'] == 25
    assert values['images'] == 24 and 0 <= values['zero_shot_top1'] <= 100
    lines = (tmp_path / 'classes.txt').read_text().splitlines()
    assert lines[0] == 'n01443537\tgoldfish' and len(lines) == 4
    teacher = OpenCLIPGenerator(
        'clip', str(tmp_path / 'clip.safetensors'), str(tmp_path / 'clip.json')
    )
    tokens = teacher(torch.randn(2, 3, 64, 64))
    assert tokens.shape == (2, 64, 16)
    with pytest.raises(ValueError, match='--batch-size is 5'):
        train_teacher.train(root, tmp_path, Namespace(batch_size=5), TINY)


def test_patches_lie_in_a_box_by_half_of_their_area():
    boxes = torch.tensor([[0, 0, 63, 63], [4, 8, 19, 11], [5, 60, 63, 63]])
    found = patches_in_boxes(boxes, 64, 8)
    for (x0, y0, x1, y1), inside in zip(boxes.tolist(), found, strict=True):
        mask = np.zeros((64, 64))
        mask[y0 : y1 + 1, x0 : x1 + 1] = 1
        share = mask.reshape(8, 8, 8, 8).mean((1, 3))
        assert inside.tolist() == (share >= 0.5).ravel().tolist()
    assert found.sum(1).tolist() == [64, 1, 7]


def test_the_box_probe_is_the_mean_of_two_ious():
    noise = torch.Generator().manual_seed(0)
    inside = torch.rand(6, 16, generator=noise) < 0.3
    tokens = torch.randn(6, 16, 4, generator=noise)
    tokens[..., 2] = inside.float()
    assert box_probe((tokens, inside), (tokens, inside)) == pytest.approx(100)
    other = inside.clone()
    other[0, :] = ~other[0, :]
    said, truth = inside.numpy().ravel(), other.numpy().ravel()
    expected = [
        np.logical_and(a, b).sum() / np.logical_or(a, b).sum()
        for a, b in ((said, truth), (~said, ~truth))
    ]
    found = box_probe((tokens, inside), (tokens, other))
    assert found == pytest.approx(100 * np.mean(expected), rel=1e-5)


def test_shifted_copies_are_the_same_at_each_call_and_as_strong_as_said():
    images = torch.full((3, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = probe_student.noisy(images)
    assert torch.equal(noisy, probe_student.noisy(images))
    assert (noisy.float() - 128).std() == pytest.approx(probe_student.NOISE, rel=0.03)
    images[:, :, :, 32:] = 0
    blurred = probe_student.blurred(images).float()
    assert torch.equal(blurred[..., :28], images[..., :28].float())
    edge = -blurred[0, 0, 32].diff()  # a Gaussian
    place = torch.arange(63.0)
    middle = (edge * place).sum() / edge.sum()
    width = ((edge * (place - middle) ** 2).sum() / edge.sum()).sqrt()
    assert width == pytest.approx(probe_student.BLUR, rel=0.1)


@pytest.mark.slow
def test_probes_of_a_config(root, tmp_path):
    config = tmp_path / 'small.py'
    config.write_text(f"""
_base_ = ['{ROOT}/configs/tiny-imagenet/finetune_vit-4x192_10e.py']
model = dict(backbone=dict(arch=dict(
    _delete_=True, embed_dims=48, num_layers=1, num_heads=3, feedforward_channels=96)))
""")
    args = Namespace(seed=0, share=1.0, device='cpu')
    values = probe_student.evaluate(config, None, root, args)
    assert set(values) < set(results.METRICS) and len(values) == 5
    # Classes are colours, on dark ground: a random backbone does.
    assert values['linear_top1'] > 60 and values['box_miou'] > 70
    assert values == probe_student.evaluate(config, None, root, args)


# ---- the plan


def plan(folder: Path, *options: str) -> study.Study:
    argv = ['--data', str(folder / 'data'), '--work-dir', str(folder), *options]
    return study.Study(study.parse_args(argv))


def finish(made: study.Study, trial: study.Trial, linear: float) -> None:
    """Write what a tuning run leaves."""
    folder = made.folder / trial.name
    (folder / '1/vis_data').mkdir(parents=True)
    row = {'probe/linear_top1': linear, 'probe/knn_top1': 1.0, 'step': 1}
    (folder / '1/vis_data/scalars.json').write_text(json.dumps(row) + '\n')
    (folder / 'epoch_1.pth').touch()


@pytest.mark.slow
def test_each_arm_has_the_same_number_of_tuning_runs_and_takes_its_best(tmp_path):
    made = plan(tmp_path)
    for arm in study.ARMS:
        first = made.trials(arm)
        assert [trial.variant for trial in first] == list(study.VARIANTS[arm])
        assert made.settled(arm) is None
        for number, trial in enumerate(first):
            finish(made, trial, 10.0 + number)
        trials = made.trials(arm)
        assert len(trials) == len(set(trials)) == study.TRIES
        assert {trial.variant for trial in trials[len(first) :]} == {first[-1].variant}
        assert made.settled(arm) is None
        for trial in trials[len(first) :]:
            finish(made, trial, 30.0 if trial.lr == 5e-4 else 5.0)
        assert made.settled(arm) == study.Trial(arm, first[-1].variant, 5e-4)
    names = [job.name for job in made.jobs()]
    assert sum(name.startswith('tune-') for name in names) == 4 * study.TRIES
    commands = {job.name: list(map(str, job.command)) for job in made.jobs()}
    dtm = commands['seed2-dtm']
    for option in (
        'optim_wrapper.optimizer.lr=0.0005', 'randomness.seed=2',
        'model.morphing.num_morphed=[16,64]', 'model.morphing.num_iters=[1,5]',
        'train_cfg.max_epochs=2', 'param_scheduler.0.end=0.2',
    ):  # fmt: skip
        assert option in dtm, option
    last = str(tmp_path / 'seed2-dtm/epoch_2.pth')
    assert last in commands['seed2-dtm-probe']
    assert (
        f'model.backbone.init_cfg.checkpoint={last}'
        in commands['seed2-dtm-finetune-10']
    )
    assert 'model.backbone.init_cfg=None' in commands['seed0-random-finetune-1']
    kinds = Counter(name.split('-', 1)[1] for name in names if name.startswith('seed'))
    assert len(kinds) == 4 + 5 * 4
    assert {
        number for name, number in kinds.items() if name.startswith(('token', 'dtm'))
    } == {3}
    assert kinds['fixed-32'] == kinds['random-probe'] == 1


def test_options_reach_the_configs(tmp_path):
    made = plan(tmp_path, '--share', '0.5')
    job = made.tuning_job(study.Trial('dtm', '16..64, k 1..5', 2e-3))
    command = list(map(str, job.command))
    cfg = Config.fromfile(command[2])
    options = [
        option.split('=', 1) for option in command[command.index('--cfg-options') + 1 :]
    ]
    cfg.merge_from_dict({key: key for key, _ in options})
    changed = cfg.to_dict()
    for key, _ in options:
        node = changed
        for part in key.split('.'):
            node = node[int(part)] if isinstance(node, list) else node[part]
        assert node == key
    probe = next(h for h in cfg.custom_hooks if h.type == 'FeatureProbeHook')
    for split in ('train', 'val'):
        root = probe[f'{split}_dataloader'].dataset.data_root
        assert root.endswith(f'{split}_dataloader.dataset.data_root')


def test_the_arms_differ_in_their_morphing_alone():
    configs = {
        arm: Config.fromfile(study.CONFIGS / f'{arm}_vit-4x192_10e.py').to_dict()
        for arm in study.ARMS
    }
    morphings = {arm: cfg['model'].pop('morphing') for arm, cfg in configs.items()}
    assert all(cfg == configs['dtm'] for cfg in configs.values())
    assert len({json.dumps(morphing) for morphing in morphings.values()}) == 4


def test_folders_of_links_hold_val_by_class(root, tmp_path):
    study.link_folders(root, tmp_path / 'folders')
    folders = sorted(path.name for path in (tmp_path / 'folders/val').iterdir())
    assert folders == sorted(SYNSETS)
    files = list((tmp_path / 'folders/val').rglob('*.JPEG'))
    assert len(files) == 12 and all(Image.open(path).size == (64, 64) for path in files)
    assert len(list((tmp_path / 'folders/pictures').rglob('*.JPEG'))) == 6


# ---- what is drawn


def content(seeds: int = 3) -> dict:
    """Made results: DTM leads by 1, 2, 3, ... over token-wise."""
    runs = []
    for seed in range(seeds):
        for arm in results.STARTS:
            row = dict(arm=arm, seed=seed)
            lead = (arm == 'dtm') * (seed + 1.0)
            row |= {key: 20.0 + seed + lead for key in results.METRICS}
            if arm != results.RANDOM:
                row['curve'] = [
                    dict(epoch=e, linear_top1=10.0 + e, knn_top1=5.0 + e)
                    for e in (1, 2, 3)
                ]
            runs.append(row)
    tuning = [dict(arm='dtm', variant='1..64', lr=1e-3, linear_top1=9.0, knn_top1=8.0)]
    views = dict(zero_shot=12.345, linear_probe=20.0, right_patches=7.0)
    patches = dict(image=dict(zero_shot=15.0), without=views, **{'with': views})
    return dict(settings={}, teacher=dict(patches=patches), tuning=tuning, runs=runs)


def test_tables_have_deviations_and_a_paired_test(tmp_path):
    results.publish(content(), tmp_path)
    text = (tmp_path / 'tiny-imagenet.md').read_text()
    rows = [line for line in text.splitlines() if line.startswith('| DTM')]
    # 21, 23, 25; leads of 1, 2, 3.
    assert rows[0].count('23.00 ± 2.00') == len(results.METRICS)
    p = 2 * student.sf(2 / (1 / 3**0.5), df=2)
    assert rows[1].count(f'+2.00 (p = {p:.2f})') == len(results.METRICS)
    assert '| patches | 12.35 | 20.00 | 7.00 |' in ' '.join(text.split(' '))
    made = json.loads((tmp_path / 'tiny-imagenet.json').read_text())
    assert {key: made[key] for key in content()} == content()
    with Image.open(tmp_path / 'tiny-imagenet.png') as image:
        assert image.size[0] > 800 and len(image.convert('L').getcolors(256)) > 50


def test_an_unfinished_study_is_drawn_as_far_as_it_is(tmp_path):
    part = content(1)
    part['runs'] = [r for r in part['runs'] if r['arm'] == 'dtm']
    del part['runs'][0]['finetuned_100']
    part['teacher'] = {}
    results.publish(part, tmp_path)
    row = next(
        line
        for line in (tmp_path / 'tiny-imagenet.md').read_text().splitlines()
        if line.startswith('| DTM')
    )
    assert '21.00' in row and '±' not in row and '–' in row
    results.publish(dict(settings={}, teacher={}, tuning=[], runs=[]), tmp_path)


def test_the_report_shows_the_study(tmp_path):
    results.publish(content(), tmp_path)
    report = build_report([tmp_path], tmp_path / 'report')
    assert not report.problems
    runs = {run.name: run for run in report.runs}
    assert runs.keys() == set(results.STARTS.values())
    assert runs['DTM'].metrics == dict.fromkeys(results.METRICS, 23.0)
    assert runs['token-wise'].metrics['knn_top1'] == 21.0
    ((picture, _),) = (picture for run in report.runs for picture in run.pictures)
    assert picture.name == 'tiny-imagenet.png'


def test_the_page_has_the_tables_of_the_published_results():
    made = json.loads((results.PUBLISHED / 'tiny-imagenet.json').read_text())
    page = (ROOT / 'docs/evidence.md').read_text()
    assert page.count('<!-- tiny-imagenet -->') == page.count('<!-- end -->') == 1
    assert results.with_tables(page, made) == page
    other = results.with_tables(page, content())
    assert '| DTM' in other and other.endswith(page.partition('<!-- end -->')[2])
    assert results.with_tables(other, made) == page

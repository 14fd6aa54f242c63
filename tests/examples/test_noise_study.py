"""The study of a perturbed teacher: its plan, and what is drawn of its values."""

import sys
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
import pytest
from mmengine.config import Config
from PIL import Image

from mmdtm.report import build_report

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'examples/toy'))
import noise_study as study  # noqa: E402


def content(seeds=(0, 1), lead=1.0) -> dict:
    """Values of a made study: DTM leads by ``lead`` times strength and seed + 1."""
    about = [
        dict(seed=seed, kind=kind, strength=strength)
        for seed in seeds
        for kind, strength in study.cells()
    ]
    arms = [
        dict(
            row,
            arm=arm,
            linear_top1=50.0
            + (arm == 'dtm') * lead * row['strength'] * (row['seed'] + 1),
            knn_top1=40.0,
        )
        for row in about
        for arm in study.ARMS
    ]
    teachers = [dict(row, without=30.0, **{'with': 35.0}) for row in about]
    return dict(quick=False, teachers=teachers, students=arms)


def test_each_seed_trains_each_arm_against_each_perturbation_once():
    args = study.parse_args(['--seeds', '1'])
    jobs = {job.name: job for job in study.NoisePlan(args, 0).noise_stages()}
    trained = [
        name for name in jobs if name.endswith(tuple(f'-{a}' for a in study.ARMS))
    ]
    assert len(trained) == len(set(trained)) == 4 * 10
    command = list(map(str, jobs['seed0-swapped-0.5-dtm'].command))
    assert 'model.target_generator.kind=swapped' in command
    assert 'model.target_generator.strength=0.5' in command
    assert 'randomness.seed=0' in command
    for name in trained:
        probe = jobs[f'{name}-probe']
        assert jobs[name].makes[0] in probe.command, 'a probe of another run'
        assert probe.needs == [name]


def test_the_arms_differ_in_their_morphing_alone():
    configs = {
        arm: Config.fromfile(study.CONFIGS / f'{arm}_vit-toy.py').to_dict()
        for arm in study.ARMS
    }
    morphings = {arm: cfg['model'].pop('morphing') for arm, cfg in configs.items()}
    assert all(cfg == configs['dtm'] for cfg in configs.values())
    assert morphings['token-wise']['type'] == 'IdentityMorphing'
    assert morphings['downsampled']['type'] == 'DownsampleMorphing'
    assert morphings['fixed'] == dict(
        morphings['dtm'], levels=1, num_morphed=32, num_iters=7
    )


def test_leads_are_taken_seed_by_seed_and_no_strength_belongs_to_all_kinds():
    rows = content(seeds=(0, 1), lead=1.5)['students']
    for kind in study.KINDS:
        found = study.leads(rows, kind, 'linear_top1')
        assert sorted(found) == [0.0, *study.STRENGTHS[kind]]
        for strength, values in found.items():
            assert values == pytest.approx([1.5 * strength, 3.0 * strength])


def test_the_table_has_mean_and_deviation_over_the_seeds(tmp_path):
    study.publish(content(), tmp_path)
    lines = (tmp_path / 'noise.md').read_text().splitlines()
    row = next(line for line in lines if line.startswith('| independent 4 |'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    # DTM of two seeds: 54 and 58.
    assert cells[1:] == [
        '30.0 ± 0.0', '35.0 ± 0.0', '50.0 ± 0.0', '50.0 ± 0.0', '50.0 ± 0.0',
        '56.0 ± 2.8', '6.0 ± 2.8',
    ]  # fmt: skip
    assert sum(line.startswith('| none |') for line in lines) == 2  # each metric once
    with Image.open(tmp_path / 'noise.png') as image:
        assert image.size[0] > 1000 and len(image.convert('L').getcolors(256)) > 50


def test_the_report_shows_the_study_over_strength(tmp_path):
    study.publish(content(), tmp_path)
    report = build_report([tmp_path], tmp_path / 'report')
    assert not report.problems
    runs = {run.name: run for run in report.runs}
    assert len(runs) == len(study.KINDS) * len(study.ARMS)
    run = runs['DTM, swapped noise']
    # A lead of 1 and 2 times the strength.
    assert run.curves['linear_top1'] == [(s, 50 + 1.5 * s) for s in (0, 0.25, 0.5, 1)]
    assert run.metrics == dict(linear_top1=51.5, knn_top1=40.0)
    assert [path.name for run in report.runs for path, _ in run.pictures] == [
        'noise.png'
    ]


def test_an_unfinished_study_is_drawn_as_far_as_it_is(tmp_path):
    part = content(seeds=(0,))
    part['students'] = part['students'][:5]
    part['teachers'] = part['teachers'][:1]
    study.publish(part, tmp_path)
    table = (tmp_path / 'noise.md').read_text()
    assert '| none | 30.0 | 35.0 | 50.0 | 50.0 | 50.0 | 50.0 | 0.0 |' in table
    assert '| swapped 1 | – | – | – | – | – | – | – |' in table

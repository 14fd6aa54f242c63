"""Does DTM help more, the more a teacher's tokens disagree in space?

The paper says that a teacher's tokens are inconsistent in space, and that morphing
mends it. Here the inconsistency is made: ``PerturbedGenerator`` adds a known amount
to the tokens of the toy dataset's CLIP, and a small ViT is pre-trained against
them token by token, against means of 2 x 2 tokens, against fixed groups and with DTM,
all else equal. Each is measured by a linear probe and k-NN; the teacher by the
share of its patches that name the right class, without and with morphing.

    .venv/bin/python examples/toy/noise_study.py          # hours on two cores
    .venv/bin/python examples/toy/noise_study.py --draw   # from docs/evidence/

Interrupted, it goes on where it was. Results so far are written after each run:
noise.json, noise.md and noise.png in the folder of ``--out``.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

from plan import (
    ENVIRONMENT,
    FINETUNE,
    FULL,
    LANES,
    PYTHON,
    QUICK,
    ROOT,
    TOOLS,
    TOY,
    Plan,
    threads,
)
from rich.console import Console

from mmdtm.cli.scripts import script_parser
from mmdtm.io import write_text
from mmdtm.models.target_generators.perturbed import KINDS
from mmdtm.process_pool import Job, ProcessPool
from mmdtm.report.text import spread_text

CONFIGS = TOY / 'configs/noise'
ARMS = {
    'token-wise': 'token-wise',
    'downsampled': '2 x 2 means',
    'fixed': 'fixed groups',
    'dtm': 'DTM',
}
STRENGTHS = {
    'independent': (1.0, 2.0, 4.0),
    'correlated': (1.0, 2.0, 4.0),
    'swapped': (0.25, 0.5, 1.0),
}
AXES = {
    'independent': "length of each token's own noise / the token's",
    'correlated': "length of the neighbours' shared noise / the token's",
    'swapped': 'share of positions that exchange tokens',
}
TEACHER = {'without': 'without morphing', 'with': 'with morphing, 32 groups'}
METRICS = {'linear_top1': 'linear probe', 'knn_top1': 'k-NN'}


def cells() -> list[tuple[str, float]]:
    """Kinds and strengths, the strongest first.

    Strength 0, the same for all kinds, comes once and before all others.
    """
    found = [(KINDS[0], 0.0)]
    for place in (2, 1, 0):
        found += [(kind, STRENGTHS[kind][place]) for kind in KINDS]
    return found


def rank(cell: tuple[str, float]) -> tuple[bool, int, float]:
    """Where a kind and strength stand in the table: none first, then by kind."""
    kind, strength = cell
    return strength > 0, KINDS.index(kind), strength


class NoisePlan(Plan):
    """The runs of one seed."""

    def noise_stages(self) -> list[Job]:
        """The CLIP, and for each perturbation the teacher and the four arms."""
        # On one core, as all of them: a second one costs more than it brings.
        stages = [replace(self.clip_stage(), alone=False, environment=ENVIRONMENT)]
        for kind, strength in cells():
            name = f'{kind}-{strength:g}'
            stages.append(self.teacher_stage(name, kind, strength))
            for arm in ARMS:
                stages += self.arm_stages(name, kind, strength, arm)
        return stages

    def teacher_stage(self, name: str, kind: str, strength: float) -> Job:
        """How many of the perturbed teacher's patches are right."""
        out, script = self.folder / f'{name}-teacher.json', Path(__file__).resolve()
        command = [PYTHON, script, '--data', self.args.data, '--teacher', self.clip]
        command += [kind, strength, out]
        return self.stage(
            f'{name}-teacher', f'teacher, {kind} {strength:g}', command, 20, ['clip'],
            files=[script], makes=[out],
        )  # fmt: skip

    def arm_stages(self, name: str, kind: str, strength: float, arm: str) -> list[Job]:
        """Pre-training and probes."""
        config, run = CONFIGS / f'{arm}_vit-toy.py', self.folder / f'{name}-{arm}'
        generator = 'model.target_generator'
        options = {
            'train_dataloader.dataset.data_root': self.args.data,
            f'{generator}.teacher.pretrained': self.clip / 'toy.safetensors',
            f'{generator}.teacher.model_config': self.clip / 'toy.json',
            f'{generator}.kind': kind,
            f'{generator}.strength': strength,
        }
        command, checkpoint = self.train(config, run, options, processes=1)
        out = self.folder / f'{name}-{arm}.json'
        probe = [PYTHON, TOOLS / 'evaluate_features.py', FINETUNE, checkpoint]
        probe += ['--data-root', self.args.data, '--seed', self.seed, '--out', out]
        title = f'{ARMS[arm]}, {kind} {strength:g}'
        return [
            self.stage(
                f'{name}-{arm}', title, command, 180, ['clip'],
                files=[config, CONFIGS / 'dtm_vit-toy.py'], makes=[checkpoint],
            ),
            self.stage(
                f'{name}-{arm}-probe', f'{title}: probe', probe, 25, [f'{name}-{arm}'],
                files=[FINETUNE], makes=[out],
            ),
        ]  # fmt: skip


def judge_teacher(
    data: Path, clip: Path, kind: str, strength: float
) -> dict[str, float]:
    """Share of a perturbed teacher's patches whose nearest class text is right.

    Args:
        data: The toy dataset; its validation images are judged.
        clip: Folder of the small CLIP.
        kind: Of perturbation.
        strength: Its strength.

    Returns:
        Percent ``without`` morphing and ``with`` it, into half as many groups.
    """
    import torch
    from train_clip import load_split

    from mmdtm.evaluation.patch_zero_shot import (
        ZeroShotCLIP,
        morph_tokens,
        patch_features,
        patch_logits,
    )
    from mmdtm.models.target_generators import PerturbedGenerator
    from mmdtm.models.target_generators.perturbed import image_keys
    from mmdtm.small_clip import normalise

    weights, config = str(clip / 'toy.safetensors'), str(clip / 'toy.json')
    model = ZeroShotCLIP('toy', weights, config)
    teacher = PerturbedGenerator(
        dict(type='OpenCLIPGenerator', model='toy', pretrained=weights,
             model_config=config),
        kind, strength,
    )  # fmt: skip
    meta = json.loads((data / 'meta.json').read_text())
    classifier = model.classifier(meta['classes'], meta['templates'])
    images, lines = load_split(data, 'val', model.image_size[0])
    labels = [meta['classes'].index(line['class_name']) for line in lines]
    right = defaultdict(list)
    for part, truth in zip(
        normalise(images).split(100), torch.tensor(labels).split(100), strict=True
    ):
        tokens = teacher.perturb(model(part)[1], image_keys(part))
        count = tokens.shape[1] // 2
        for way, groups in (
            ('without', None),
            ('with', morph_tokens(tokens, count, 7)),
        ):
            said = patch_logits(patch_features(tokens, groups), classifier).argmax(-1)
            right[way] += (said == truth[:, None]).float().mean(1).tolist()
    return {way: 100 * statistics.fmean(values) for way, values in right.items()}


def collect(plans: list[NoisePlan], quick: bool) -> dict:
    """What the finished runs wrote: the content of noise.json."""
    teachers, students = [], []
    for plan, (kind, strength) in product(plans, cells()):
        about = dict(seed=plan.seed, kind=kind, strength=strength)
        name = f'{kind}-{strength:g}'
        out = plan.folder / f'{name}-teacher.json'
        if out.exists():
            teachers.append(about | json.loads(out.read_text()))
        for arm in ARMS:
            out = plan.folder / f'{name}-{arm}.json'
            if out.exists():
                found = json.loads(out.read_text())
                students.append(
                    about | dict(arm=arm) | {key: found[key] for key in METRICS}
                )
    return dict(quick=quick, teachers=teachers, students=students)


def values_of(rows: list[dict], kind: str, key: str, **where) -> dict[float, list]:
    """A column's values by strength, over the seeds.

    Args:
        rows: ``teachers`` or ``students`` of noise.json.
        kind: Of perturbation; strength 0 belongs to all.
        key: The column.
        where: What other columns must be.
    """
    found = defaultdict(list)
    for row in rows:
        fits = all(row[name] == value for name, value in where.items())
        if fits and (row['kind'] == kind or row['strength'] == 0):
            found[row['strength']].append(row[key])
    return dict(sorted(found.items()))


def leads(rows: list[dict], kind: str, key: str) -> dict[float, list[float]]:
    """DTM minus token-wise, seed by seed, by strength."""
    found = defaultdict(list)
    for strength in values_of(rows, kind, key):
        by_seed: dict[int, dict] = defaultdict(dict)
        for row in rows:
            if row['strength'] == strength and row['kind'] in (kind, KINDS[0]):
                if row['kind'] == kind or strength == 0:
                    by_seed[row['seed']][row['arm']] = row[key]
        found[strength] = [
            arms['dtm'] - arms['token-wise']
            for arms in by_seed.values()
            if {'dtm', 'token-wise'} <= set(arms)
        ]
    return dict(found)


def write_table(content: dict, out: Path) -> None:
    """noise.md: a table for each metric, a row for each perturbation."""
    lines = []
    for key, title in METRICS.items():
        heads = [*TEACHER.values(), *ARMS.values(), 'DTM - token-wise']
        lines += [f'{title.capitalize()}, top-1 (%)', '']
        lines += ['| perturbation | ' + ' | '.join(heads) + ' |']
        lines += ['|---|' + '---:|' * len(heads)]
        for kind, strength in sorted(cells(), key=rank):
            cell = [
                values_of(content['teachers'], kind, way).get(strength, [])
                for way in TEACHER
            ]
            cell += [
                values_of(content['students'], kind, key, arm=arm).get(strength, [])
                for arm in ARMS
            ]
            cell.append(leads(content['students'], kind, key).get(strength, []))
            name = f'{kind} {strength:g}' if strength else 'none'
            texts = [name, *(spread_text(values, 1) for values in cell)]
            lines.append('| ' + ' | '.join(texts) + ' |')
        lines.append('')
    write_text(out / 'noise.md', '\n'.join(lines).rstrip() + '\n')


def draw(content: dict, out: Path) -> None:
    """noise.png: the metrics and the teacher's patches over strength, by kind."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from mmdtm.visualization import LINE_COLORS, save_figure

    figure, panels = plt.subplots(
        3, 3, figsize=(11, 9), layout='constrained', sharey='row', sharex='col'
    )
    rows = [
        *((content['students'], key, f'{title}\ntop-1 (%)', 'arm') for key, title in
          METRICS.items()),
        (content['teachers'], None, "teacher's right\npatches (%)", None),
    ]  # fmt: skip
    for line, (source, key, label, column) in zip(panels, rows, strict=True):
        for panel, kind in zip(line, KINDS, strict=True):
            for index, (name, title) in enumerate(
                (ARMS if column else TEACHER).items()
            ):
                found = (
                    values_of(source, kind, key, arm=name)
                    if column
                    else values_of(source, kind, name)
                )
                means = [statistics.fmean(values) for values in found.values()]
                errors = [
                    statistics.stdev(values) if len(values) > 1 else 0
                    for values in found.values()
                ]
                panel.errorbar(
                    list(found), means, errors, label=title, marker='osD^'[index],
                    color=LINE_COLORS[index], capsize=2, linewidth=1.6, markersize=4,
                )  # fmt: skip
            panel.grid(alpha=0.3)
            panel.spines[['top', 'right']].set_visible(False)
        line[0].set_ylabel(label)
        line[-1].legend(frameon=False, fontsize=8)
    for panel, kind in zip(panels[-1], KINDS, strict=True):
        panel.set_xlabel(AXES[kind], fontsize=9)
    for panel, kind in zip(panels[0], KINDS, strict=True):
        panel.set_title(kind)
    save_figure(figure, out / 'noise.png', dpi=110)
    plt.close(figure)


def report_rows(students: list[dict]) -> list[dict]:
    """A row for each kind and arm, over strength, as tools/report.py reads them.

    Its values are means over the seeds at the strongest perturbation that was run.
    """
    rows = []
    for kind, (arm, title) in product(KINDS, ARMS.items()):
        curves: dict[str, list] = {}
        for key in METRICS:
            found = values_of(students, kind, key, arm=arm)
            curves[key] = [[s, statistics.fmean(found[s])] for s in found]
        if curves['linear_top1']:
            strength, _ = curves['linear_top1'][-1]
            metrics = {key: points[-1][1] for key, points in curves.items()}
            row = dict(name=f'{title}, {kind} noise', metrics=metrics, curves=curves)
            rows.append(row | dict(x_name='strength', settings={'strength': strength}))
    if rows:
        caption = "Noise in the teacher's tokens"
        rows[0]['pictures'] = [dict(file='noise.png', caption=caption)]
    return rows


def publish(content: dict, out: Path) -> None:
    """Write noise.json, noise.md and noise.png."""
    out.mkdir(parents=True, exist_ok=True)
    write_table(content, out)
    draw(content, out)
    shown = dict(kind='noise study', rows=report_rows(content['students']))
    write_text(out / 'noise.json', json.dumps(content | shown, indent=1) + '\n')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('--work-dir', type=Path, default=ROOT / 'work_dirs/noise_study', help='runs')
    add('--data', type=Path, default=ROOT / 'data/toy', help='where scenes are drawn')
    add('--out', type=Path, help='for the results (the work folder)')
    add('--seed', type=int, default=0, help='the first seed')
    add('--seeds', type=int, default=3, help='how many seeds')
    add('--lanes', type=int, default=LANES, help='runs at a time')
    add('--quick', action='store_true', help='every run cut short: values mean nothing')
    add('--draw', action='store_true', help='only draw docs/evidence/noise.json')
    add('--teacher', nargs=4, metavar=('CLIP', 'KIND', 'STRENGTH', 'OUT'),
        help='only judge a teacher')  # fmt: skip
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f'--seeds is {args.seeds}. Choose 1 or more.')
    args.work_dir, args.data = args.work_dir.resolve(), args.data.resolve()
    args.tour = QUICK if args.quick else FULL
    return args


def main() -> int:
    """Run the study, or one of its parts."""
    args, console = parse_args(), Console()
    published = ROOT / 'docs/evidence'
    if args.draw:
        content = json.loads((published / 'noise.json').read_text())
        publish(content, args.out or published)
        return 0
    if args.teacher:
        clip, kind, strength, out = args.teacher
        found = judge_teacher(args.data, Path(clip), kind, float(strength))
        write_text(out, json.dumps(found) + '\n')
        return 0
    from plan import data_stage

    plans = [NoisePlan(args, args.seed + i) for i in range(args.seeds)]
    jobs = [data_stage(args)]
    # All seeds of a perturbation before the next one.
    for stages in zip(*(plan.noise_stages() for plan in plans), strict=True):
        # As long as each other for the pool, which would take the longest first.
        jobs += [replace(stage, seconds=100) for stage in stages]
    out = args.out or args.work_dir
    with ProcessPool(jobs, args.work_dir, [threads(LANES)] * args.lanes, ROOT) as pool:
        failed = 0
        for job, problem in pool.run(console):
            if problem:
                failed += 1
                console.print(f'{job.title} {problem}; its log: {pool.log(job.name)}')
            elif job.name.endswith(('-probe', '-teacher')):
                publish(collect(plans, args.quick), out)
    console.print(f'{failed} of {len(jobs)} runs failed. Results: {out}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())

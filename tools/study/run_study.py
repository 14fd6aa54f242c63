"""Does DTM help on photographs? The whole study on Tiny ImageNet, by one command.

A small CLIP is trained once (train_teacher.py) and judged as in table 1. Each arm is
tuned by the same number of short runs, then pre-trained on each of its seeds, probed
(probe_student.py) and fine-tuned. docs/evidence.md has the protocol.

    python tools/study/run_study.py --data data/tiny-imagenet-200
    python tools/study/run_study.py --draw     # from docs/evidence/ alone

Interrupted, it goes on where it was, also within a run. After each run the results so
far are written to the folder of ``--out``: tiny-imagenet.json, tables and curves.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console
from study_results import ARMS, BASELINE, NAME, PUBLISHED, STARTS, publish
from train_teacher import TEMPLATES

from mmdtm.cli.scripts import script, script_parser
from mmdtm.datasets import TinyImageNet
from mmdtm.datasets.tiny_imagenet import class_names
from mmdtm.io import atomic_write, read_json
from mmdtm.process_pool import Job, ProcessPool
from mmdtm.training_log import read_training_log

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIGS = ROOT / 'configs/tiny-imagenet'
FINETUNE = CONFIGS / 'finetune_vit-4x192_10e.py'

# What of each arm's morphing is tried out: options by name.
VARIANTS: dict[str, dict[str, dict]] = {
    'token-wise': {'single tokens': {}},
    'downsampled': {'2 x 2': {}, '4 x 4': {'stride': 4}},
    'fixed-32': {'32': {}, '48': {'num_morphed': 48}, '16': {'num_morphed': 16}},
    'dtm': {
        '1..64, k 1..14': {},
        '1..64, k 1..5': {'num_iters': (1, 5)},
        '16..64, k 1..14': {'num_morphed': (16, 64)},
        '16..64, k 1..5': {'num_morphed': (16, 64), 'num_iters': (1, 5)},
    },
}
# An arm's variants at the first rate, then its best at the next rates: TRIES runs.
RATES, TRIES = (1e-3, 5e-4, 2e-3, 2.5e-4, 4e-3, 1.4e-3), 6
TUNING_SEED = 100  # of no run that is compared
TUNING_SHARE = 0.2  # of the images, in one epoch
WARM_UP = 0.1  # of a pre-training
# So few epochs need more steps than batches of 128 give: docs/evidence.md.
BATCH_SIZE = 32
CRITERION = 'linear_top1'
# The two that the paper's claim is about have --seeds, the other starts --other-seeds.
COMPARED = (BASELINE, 'dtm')
# Labelled images of a class: the share of all that they are, epochs of fine-tuning.
LABELS = {1: (1 / 500, 50), 10: (10 / 500, 20), 100: (100 / 500, 3)}

# Training images of a student's and of the teacher's probes; images drawn.
PROBE_SHARE, PATCH_SHARE, PICTURES = 0.25, 0.1, 6
# Seconds on one core, per image: measured, docs/evidence.md.
PRETRAIN_S, FINETUNE_S, FORWARD_S = 0.012, 0.0125, 0.004


@dataclass(frozen=True)
class Trial:
    """A tuning run: an arm's variant at a learning rate."""

    arm: str
    variant: str
    lr: float

    @property
    def name(self) -> str:
        """Of its job and its folder."""
        index = list(VARIANTS[self.arm]).index(self.variant)
        return f'tune-{self.arm}-{index}-{self.lr:g}'


@dataclass
class Study:
    """The jobs of the study, as far as results decide them.

    Attributes:
        args: The command line.
        folder: Of all runs.
    """

    args: argparse.Namespace
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.args.work_dir
        self.teacher = self.folder / 'teacher'
        shorter = 20 if self.args.quick else 1
        self.labels = {
            count: (share, max(1, epochs // shorter))
            for count, (share, epochs) in LABELS.items()
        }

    def loaders(self, *splits: str) -> dict:
        """Options of a training's loaders: the data, and processes that read them."""
        options = {}
        for split in splits:
            loader = f'{split}_dataloader'
            options[f'{loader}.dataset.data_root'] = self.args.data
            options[f'{loader}.num_workers'] = self.args.workers
            options[f'{loader}.persistent_workers'] = self.args.workers > 0
        return options

    def train(self, config: Path, folder: Path, epochs: int, options: dict) -> tuple:
        """Command of a training, and its last checkpoint."""
        options = {
            'train_cfg.max_epochs': epochs,
            'optim_wrapper.dtype': self.args.precision,
            'default_hooks.logger.interval': 20,
            **options,
        }
        command = [sys.executable, ROOT / 'tools/train.py', config]
        command += ['--work-dir', folder, '--resume', 'auto', '--cfg-options']
        command += [f'{key}={value}' for key, value in options.items()]
        return command, folder / f'epoch_{epochs}.pth'

    # ---- the teacher

    def teacher_jobs(self) -> Iterator[Job]:
        """The small CLIP, table 1's protocol and figure 2's pictures."""
        script, out = HERE / 'train_teacher.py', self.teacher
        command = [sys.executable, script, '--data', self.args.data, '--out', out]
        command += ['--bfloat16'] * (self.args.precision == 'bfloat16')
        command += ['--steps', self.args.teacher_steps]
        yield Job(
            'teacher', command, 'small CLIP', makes=[out / 'metrics.json'],
            seconds=0.55 * self.args.teacher_steps,
        )  # fmt: skip
        folders = self.folder / 'folders'
        command = [sys.executable, Path(__file__).resolve(), '--folders', folders]
        command += ['--data', self.args.data]
        yield Job('folders', command, 'class folders', makes=[folders], seconds=10)
        clip = ['--model', 'clip', '--pretrained', out / 'clip.safetensors']
        clip += ['--model-config', out / 'clip.json', '--classes', out / 'classes.txt']
        clip += ['--templates', *TEMPLATES]
        analysis = ROOT / 'tools/analysis'
        command = [sys.executable, analysis / 'patch_ensemble.py', folders / 'val']
        command += ['--train', folders / 'train', '--out', self.folder / 'patches.json']
        command += ['--workers', 0, '--probe', 'lbfgs', *clip]
        needs = ['teacher', 'folders']
        yield Job(
            'patches', command, "the teacher's patches", needs,
            makes=[self.folder / 'patches.json'], seconds=300,
        )  # fmt: skip
        pictures = self.folder / 'patch_zero_shot'
        command = [sys.executable, analysis / 'patch_zero_shot.py']
        command += [folders / 'pictures', *clip, '--out', pictures]
        yield Job(
            'pictures', command, 'pictures of patches', needs,
            makes=[pictures / 'results.json'], seconds=20,
        )  # fmt: skip

    # ---- the students

    def pretrain(
        self,
        arm: str,
        name: str,
        options: dict,
        title: str,
        *,
        epochs: int,
        share: float,
    ) -> tuple[Job, Path]:
        """A pre-training job on a share of the images, and its last checkpoint."""
        config = CONFIGS / f'{arm}_vit-4x192_10e.py'
        options = self.loaders('train') | options
        hooks = [
            index
            for index, hook in enumerate(Config.fromfile(config).custom_hooks)
            if hook.type == 'FeatureProbeHook'
        ]
        for split in ('train', 'val'):
            key = f'custom_hooks.{hooks[0]}.{split}_dataloader.dataset.data_root'
            options[key] = self.args.data
        generator = 'model.target_generator'
        options |= {
            f'{generator}.pretrained': self.teacher / 'clip.safetensors',
            f'{generator}.model_config': self.teacher / 'clip.json',
            'train_dataloader.dataset.share': share,
            'param_scheduler.0.end': WARM_UP * epochs,
            'param_scheduler.1.begin': WARM_UP * epochs,
        }
        options['train_dataloader.batch_size'] = 8 if self.args.quick else BATCH_SIZE
        command, last = self.train(config, self.folder / name, epochs, options)
        seconds = (PRETRAIN_S * 100_000 * share + FORWARD_S * 20_000) * epochs
        job = Job(name, command, title, ['teacher'], makes=[last], seconds=seconds)
        return job, last

    def morphing(self, trial: Trial) -> dict:
        """Options of a trial's variant and rate."""
        found = {
            f'model.morphing.{key}': json.dumps(value).replace(' ', '')
            for key, value in VARIANTS[trial.arm][trial.variant].items()
        }
        return found | {'optim_wrapper.optimizer.lr': trial.lr}

    def tuning_job(self, trial: Trial) -> Job:
        """One epoch of few images, probed at its end."""
        options = self.morphing(trial) | {'randomness.seed': TUNING_SEED}
        title = f'{ARMS[trial.arm]}, {trial.variant}, rate {trial.lr:g}'
        share = self.args.share * TUNING_SHARE
        arm, name = trial.arm, trial.name
        return self.pretrain(arm, name, options, title, epochs=1, share=share)[0]

    def outcome(self, trial: Trial) -> dict | None:
        """What a finished tuning run's last probe says."""
        curve = curve_of(self.folder / trial.name)
        finished = (self.folder / trial.name / 'epoch_1.pth').exists()
        return curve[-1] if finished and curve else None

    def trials(self, arm: str) -> list[Trial]:
        """An arm's tuning runs, as far as the results decide them."""
        first = [Trial(arm, variant, RATES[0]) for variant in VARIANTS[arm]]
        best = self.best(first)
        if best is None:
            return first
        rates = RATES[1 : 1 + TRIES - len(first)]
        return first + [Trial(arm, best.variant, rate) for rate in rates]

    def best(self, trials: list[Trial]) -> Trial | None:
        """The trial with the highest linear probe; None while one is open."""
        values = [self.outcome(trial) for trial in trials]
        if not all(values):
            return None
        return max(
            zip(trials, values, strict=True), key=lambda item: item[1][CRITERION]
        )[0]

    def settled(self, arm: str) -> Trial | None:
        """What the comparison takes of an arm; None while tuning is going on."""
        trials = self.trials(arm)
        return self.best(trials) if len(trials) == TRIES else None

    def run_jobs(self, start: str, seed: int, trial: Trial | None) -> Iterator[Job]:
        """Pre-training, probes and fine-tuning of a start and a seed."""
        name, title = f'seed{seed}-{start}', f'{STARTS[start]}, seed {seed}'
        last, needs = None, []
        if trial is not None:
            options = self.morphing(trial) | {'randomness.seed': seed}
            job, last = self.pretrain(
                start, name, options, title,
                epochs=self.args.epochs, share=self.args.share,
            )  # fmt: skip
            needs = [name]
            yield job
        out = self.folder / f'{name}-probe.json'
        script = HERE / 'probe_student.py'
        command = [sys.executable, script, FINETUNE, *([last] if last else [])]
        share = self.args.share * PROBE_SHARE
        command += ['--data', self.args.data, '--share', share]
        command += ['--seed', seed, '--out', out]
        yield Job(
            f'{name}-probe', command, f'{title}: probes', needs, makes=[out],
            seconds=FORWARD_S * (100_000 * share + 45_000) + 100,
        )  # fmt: skip
        for count, (share, epochs) in self.labels.items():
            options = {
                **self.loaders('train', 'val', 'test'),
                'randomness.seed': seed,
                'train_dataloader.dataset.share': share,
                'train_cfg.val_interval': epochs,
                'default_hooks.checkpoint.interval': max(1, epochs // 10),
                'model.backbone.init_cfg' + ('.checkpoint' if last else ''): last,
            }
            job = f'{name}-finetune-{count}'
            command, made = self.train(FINETUNE, self.folder / job, epochs, options)
            seconds = FINETUNE_S * 100_000 * share * epochs + FORWARD_S * 10_000
            title_of = f'{title}: {count} a class'
            yield Job(job, command, title_of, needs, makes=[made], seconds=seconds)

    def jobs(self) -> list[Job]:
        """All jobs that the results so far decide, each after those it needs."""
        jobs = list(self.teacher_jobs())
        settled = {arm: self.settled(arm) for arm in ARMS}
        for arm in ARMS:
            jobs += map(self.tuning_job, self.trials(arm))
        if all(settled.values()):
            for seed, start in self.starts():
                jobs += self.run_jobs(start, seed, settled.get(start))
        return jobs

    def starts(self) -> Iterator[tuple[int, str]]:
        """Seeds and starts that are compared."""
        most = max(self.args.seeds, self.args.other_seeds)
        for seed, start in product(range(most), STARTS):
            compared = start in COMPARED
            if seed < (self.args.seeds if compared else self.args.other_seeds):
                yield seed, start

    def collect(self) -> dict:
        """What the finished jobs wrote: the content of tiny-imagenet.json."""
        content: dict = dict(
            settings=dict(
                quick=self.args.quick, epochs=self.args.epochs, share=self.args.share,
                precision=self.args.precision, device=device_name(),
            ),
            teacher={}, tuning=[], runs=[],
        )  # fmt: skip
        metrics = self.teacher / 'metrics.json'
        if metrics.exists():
            found = read_json(metrics)
            keys = ('zero_shot_top1', 'chance', 'cpu_seconds', 'settings')
            content['teacher'] = {key: found[key] for key in keys}
            del content['teacher']['settings']['data']
            del content['teacher']['settings']['out']
        if (self.folder / 'patches.json').exists():
            patches = read_json(self.folder / 'patches.json')
            content['teacher']['patches'] = patches['results']
        for trial in chain.from_iterable(map(self.trials, ARMS)):
            if values := self.outcome(trial):
                about = dict(arm=trial.arm, variant=trial.variant, lr=trial.lr)
                content['tuning'].append(
                    about | {key: values[key] for key in ('linear_top1', 'knn_top1')}
                )
        for seed, start in self.starts():
            name = f'seed{seed}-{start}'
            row = dict(arm=start, seed=seed)
            out = self.folder / f'{name}-probe.json'
            row |= read_json(out) if out.exists() else {}
            for count, (_, epochs) in self.labels.items():
                folder = self.folder / f'{name}-finetune-{count}'
                if (folder / f'epoch_{epochs}.pth').exists():
                    _, top1 = read_training_log(folder).series('val', 'accuracy/top1')
                    row[f'finetuned_{count}'] = top1[-1]
            if curve := curve_of(self.folder / name):
                row['curve'] = curve
            if len(row) > 2:
                content['runs'].append(row)
        return content


def curve_of(folder: Path) -> list[dict]:
    """The probes of a pre-training: ``epoch``, ``linear_top1``, ``knn_top1`` each."""
    try:
        log = read_training_log(folder)
    except FileNotFoundError:
        return []
    series = [log.series('val', f'probe/{key}') for key in ('linear_top1', 'knn_top1')]
    (epochs, linear), (_, knn) = series
    return [
        dict(epoch=round(e), linear_top1=x, knn_top1=y)
        for e, x, y in zip(epochs, linear, knn, strict=True)
    ]


def device_name() -> str:
    """What the trainings ran on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'


def link_folders(data: Path, out: Path) -> None:
    """Class folders of links, for the tools on patches: val, part of train, pictures.

    Args:
        data: ``tiny-imagenet-200``.
        out: Folder to make.
    """
    val = TinyImageNet(str(data), 'val')
    train = TinyImageNet(str(data), 'train', share=PATCH_SHARE)
    step = max(1, len(val) // PICTURES)
    parts = dict(train=(train, 1), val=(val, 1), pictures=(val, step))
    synsets = sorted(class_names(data))
    with atomic_write(out) as made:
        for name, (dataset, stride) in parts.items():
            for index in range(0, len(dataset), stride):
                info = dataset.get_data_info(index)
                folder = made / name / synsets[info['gt_label']]
                folder.mkdir(parents=True, exist_ok=True)
                path = Path(info['img_path']).resolve()
                (folder / path.name).symlink_to(path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    cuda = torch.cuda.is_available()
    parser = script_parser(__doc__)
    add = parser.add_argument
    add(
        '--data', type=Path, default=ROOT / 'data/tiny-imagenet-200', help='as unpacked'
    )
    add('--work-dir', type=Path, default=ROOT / 'work_dirs/tiny_imagenet', help='runs')
    add('--out', type=Path, help='for the results; the work folder')
    add('--seeds', type=int, default=3, help='of token-wise and DTM')
    add('--other-seeds', type=int, default=1, help='of the other starts')
    add('--epochs', type=int, default=2, help='of pre-training')
    add('--share', type=float, default=1.0, help='of the images, to pre-train on')
    add('--teacher-steps', type=int, default=4000, help="of the teacher's training")
    add('--lanes', type=int, default=1, help='runs at a time')
    add('--workers', type=int, default=4 if cuda else 0, help='that read images, a run')
    text = 'auto, bfloat16 or float32; auto is float32 on a CPU'
    add('--precision', default='auto', help=text)
    text = 'cut every run short, to see that all of it runs: values mean nothing'
    add('--quick', action='store_true', help=text)
    add('--draw', action='store_true', help='only draw from docs/evidence/')
    add('--folders', type=Path, help='only make class folders of links')
    args = parser.parse_args(argv)
    for name in ('seeds', 'other_seeds', 'epochs', 'lanes', 'teacher_steps'):
        if getattr(args, name) < 1:
            option = name.replace('_', '-')
            parser.error(f'--{option} is {getattr(args, name)}. Choose 1 or more.')
    if args.quick:
        args.epochs, args.share, args.teacher_steps = 2, 0.01, 20
    args.data, args.work_dir = args.data.resolve(), args.work_dir.resolve()
    return args


@script
def main(argv: list[str] | None = None) -> int:
    """Run the study, or one of its parts."""
    args, console = parse_args(argv), Console()
    if args.draw:
        publish(read_json(PUBLISHED / f'{NAME}.json'), args.out or PUBLISHED)
        return 0
    if args.folders:
        link_folders(args.data, args.folders)
        return 0
    study, out = Study(args), args.out or args.work_dir
    threads = str(max(1, torch.get_num_threads() // args.lanes))
    place = dict(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    # Keep freed memory, which is a good part of a small model's step on a CPU.
    place |= dict(MALLOC_MMAP_THRESHOLD_='1000000000', MALLOC_TRIM_THRESHOLD_='-1')
    jobs: list[Job] = []
    # What tuning says decides what comes next.
    while len(jobs) < len(now := study.jobs()):
        jobs = now
        with ProcessPool(jobs, args.work_dir, [place] * args.lanes, ROOT) as pool:
            for job, problem in pool.run(console):
                if problem:
                    console.print(pool.tail(job.name, 15), markup=False)
                    console.print(f'{job.title} {problem}: {pool.log(job.name)}')
                    return 1
                publish(study.collect(), out)
    console.print(f'Done. Results: {out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

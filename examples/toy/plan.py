"""What the quickstart runs: the stages of each seed, and those that come once."""

import argparse
import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from draw_scenes import TEMPLATE
from mmengine.config import Config

from mmdtm.process_pool import Job

ROOT = Path(__file__).resolve().parents[2]
TOY, TOOLS = ROOT / 'examples/toy', ROOT / 'tools'
CONFIGS = TOY / 'configs'
PYTHON = sys.executable
LANES = 2  # stages at a time that do not ask for all cores
LINUX = hasattr(os, 'sched_getaffinity')
ENVIRONMENT = dict(
    PYTHON=PYTHON,
    COLUMNS='100',
    CUDA_VISIBLE_DEVICES='',  # two processes of a small model, whatever there is
    # Keep freed memory: giving back and asking again for every activation takes
    # glibc a good part of a small model's step.
    MALLOC_MMAP_THRESHOLD_='1000000000',
    MALLOC_TRIM_THRESHOLD_='-1',
)

# What is compared, in the order of the table, and how it is pre-trained.
STARTS = {'random': 'random start', 'token-wise': 'token-wise', 'dtm': 'DTM'}
PRETRAIN = {name: CONFIGS / f'{name}_vit-toy.py' for name in ('dtm', 'token-wise')}
FINETUNE, SEGMENT = CONFIGS / 'finetune_vit-toy.py', CONFIGS / 'upernet_vit-toy.py'

# The scene whose patches are looked at; --quick draws it, too.
SCENE = 'moon/000005'
SCENE_PICTURE = SCENE.replace('/', '_') + '.png'

# In the order of the report.
PICTURES = {
    'loss_curves.png': 'Losses of pre-training and segmentation',
    'finetuning.png': 'Fine-tuning, as in Figure 5',
    'morphing.png': 'Images, their block masks and their morphed groups',
    f'show_morphing/{SCENE_PICTURE}': 'Groups for several N_m and k',
    f'patch_zero_shot/{SCENE_PICTURE}': (
        'Patch-wise zero-shot classes without and with morphing, as in Figure 2'
    ),
    'segmentation.png': 'Scenes, the truth and the predicted masks',
}


@dataclass(frozen=True)
class Tour:
    """How much the quickstart runs.

    Attributes:
        clip_steps: Of the small CLIP's training; None leaves its own number.
        batch_size: Images in a step of each training; None leaves its own number.
        scenes: Numbers of training and validation scenes; None likewise.
        lengths: For a config the epochs or iterations; None leaves the config's.
        tasks: What each start is fine-tuned on.
        full: The patches, the grid search and all pictures as well.
        seconds: What the stages take, beside those of the full tour.
    """

    clip_steps: int | None = None
    batch_size: int | None = None
    scenes: tuple[int, int] | None = None
    lengths: Mapping[Path, int] = field(default_factory=dict)
    tasks: tuple[str, ...] = ('finetune', 'segment')
    full: bool = True
    seconds: float = 1.0


FULL = Tour()
# In at most ten CPU-minutes, see README.md. In as many CPU-seconds the CLIP learns more
# in steps of half the images: 75 % zero-shot in 1500, 49 % in 800 of all 32.
SHORT = Tour(
    clip_steps=1100,
    batch_size=16,
    scenes=(2000, 500),
    lengths=dict.fromkeys(PRETRAIN.values(), 4) | {FINETUNE: 1},
    tasks=('finetune',),
    full=False,
    seconds=0.7,
)
# To see that all of it runs.
QUICK = Tour(
    clip_steps=10,
    scenes=(256, 64),
    lengths=dict.fromkeys(PRETRAIN.values(), 1) | {FINETUNE: 1, SEGMENT: 10},
    seconds=0.2,
)


def threads(jobs: int) -> dict[str, str]:
    """The environment that shares the cores out among so many jobs."""
    cores = len(os.sched_getaffinity(0)) if LINUX else (os.cpu_count() or 1)
    number = str(max(1, min(cores, 16) // jobs))
    return dict(OMP_NUM_THREADS=number, MKL_NUM_THREADS=number)


def make_job(
    name: str, title: str, command: list, seconds: float, alone=False, **kwargs
) -> Job:
    """A stage as a job of the process pool."""
    # tools/dist_train.sh shares the cores out by itself.
    share = alone and not str(command[0]).endswith('.sh')
    environment = ENVIRONMENT | (threads(1) if share else {})
    return Job(
        name, command, title, seconds=seconds, alone=alone, environment=environment,
        **kwargs,
    )  # fmt: skip


@functools.cache
def read_config(path: Path) -> Config:
    """A config, read once for all its runs."""
    return Config.fromfile(path, import_custom_modules=False)


class Plan:
    """The stages of one seed.

    Args:
        args: The command line.
        seed: Of the CLIP, the pre-training and everything after it.
    """

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed, self.tour = args, seed, args.tour
        self.folder = args.work_dir / f'seed{seed}'
        self.clip = self.folder / 'clip'
        self.suffix = f', seed {seed}' if args.seeds > 1 else ''

    def name(self, stage: str) -> str:
        """A stage's name among those of all seeds, which share the data."""
        return stage if stage == 'data' else f'seed{self.seed}-{stage}'

    def stage(
        self,
        name: str,
        title: str,
        command: list,
        seconds: float,
        needs: list,
        **kwargs,
    ) -> Job:
        return make_job(
            self.name(name), title + self.suffix, command, self.tour.seconds * seconds,
            needs=list(map(self.name, needs)), **kwargs,
        )  # fmt: skip

    def train(self, config: Path, work_dir: Path, options: dict, processes: int):
        """Command line and last checkpoint of a training run."""
        cfg = read_config(config)
        length = cfg.train_cfg
        unit, most = (
            ('epoch', length.max_epochs)
            if 'max_epochs' in length
            else ('iter', length.max_iters)
        )
        if config in self.tour.lengths:
            most = self.tour.lengths[config]
            options = {f'train_cfg.max_{unit}s': most, **options}
            if unit == 'iter':
                options['train_cfg.val_interval'] = most
                options['default_hooks.checkpoint.interval'] = most
            elif self.tour is SHORT:  # the schedule ends with the training
                begin = cfg.param_scheduler[1].begin
                options['param_scheduler.1.end'] = most
                options['param_scheduler.1.T_max'] = most - begin
                options['default_hooks.checkpoint.interval'] = most
        if self.tour.batch_size:
            each = self.tour.batch_size // processes
            options = {'train_dataloader.batch_size': each, **options}
        launch = (
            [TOOLS / 'dist_train.sh', config, processes]
            if processes > 1
            else [PYTHON, TOOLS / 'train.py', config]
        )
        options = {'randomness.seed': self.seed, **options}
        command = [*launch, '--work-dir', work_dir, '--cfg-options']
        command += [f'{key}={value}' for key, value in options.items()]
        return command, work_dir / f'{unit}_{most}.pth'

    def downstream_options(self, checkpoint: Path | None) -> dict:
        """Where fine-tuning and segmentation find the data and their start."""
        options = {
            f'{split}_dataloader.dataset.data_root': self.args.data
            for split in ('train', 'val', 'test')
        }
        if checkpoint is None:
            return options | {'model.backbone.init_cfg': None}
        return options | {'model.backbone.init_cfg.checkpoint': checkpoint}

    def clip_options(self) -> list:
        """The small CLIP and its classes, for the tools in tools/analysis/."""
        model = ['--model', 'toy', '--pretrained', self.clip / 'toy.safetensors']
        return [*model, '--model-config', self.clip / 'toy.json']

    def stages(self) -> list[Job]:
        """CLIP, pre-training, and what each start comes to."""
        clip, pretraining, checkpoints = self.clip_stage(), [], {'random': None}
        for start, config in PRETRAIN.items():
            options = {
                'train_dataloader.dataset.data_root': self.args.data,
                'model.target_generator.pretrained': self.clip / 'toy.safetensors',
                'model.target_generator.model_config': self.clip / 'toy.json',
            }
            command, checkpoints[start] = self.train(
                config, self.folder / f'{start}_pretrain', options, processes=2
            )
            pretraining.append(
                self.stage(
                    start, f'pre-training, {STARTS[start]}', command, 100, ['clip'],
                    files=[config, PRETRAIN['dtm']], makes=[checkpoints[start]],
                    alone=True,
                )
            )  # fmt: skip
        probes = [self.probe_stage(*item) for item in checkpoints.items()]
        downstream = [
            self.downstream_stage(task, title, config, start, checkpoint)
            for task, title, config in (
                ('finetune', 'fine-tuning', FINETUNE),
                ('segment', 'segmentation', SEGMENT),
            )
            for start, checkpoint in checkpoints.items()
            if task in self.tour.tasks
        ]
        if self.tour.full:
            return [clip, *pretraining, *probes, *downstream, self.patches_stage()]
        # DTM's result first; beside the CLIP what needs no pre-training.
        random, dtm, token_wise = probes
        first = [clip, random, downstream.pop(0), self.groups_stage()]
        return [*first, pretraining[0], dtm, pretraining[1], token_wise, *downstream]

    def clip_stage(self) -> Job:
        script = TOY / 'train_clip.py'
        command = [PYTHON, script, '--data', self.args.data, '--out', self.clip]
        command += ['--seed', self.seed]
        if self.tour.clip_steps:
            command += ['--steps', self.tour.clip_steps]
        if self.tour.batch_size:
            command += ['--batch-size', self.tour.batch_size]
        return self.stage(
            'clip', 'small CLIP', command, 120, ['data'], files=[script],
            # On a second core it takes more CPU time, and what needs the data alone
            # can run there.
            makes=[self.clip / 'metrics.json'], alone=self.tour.full,
        )  # fmt: skip

    def probe_stage(self, start: str, checkpoint: Path | None) -> Job:
        out = self.folder / f'{start}_probe.json'
        command = [PYTHON, TOOLS / 'evaluate_features.py', FINETUNE]
        command += [] if checkpoint is None else [checkpoint]
        command += ['--data-root', self.args.data, '--seed', self.seed, '--out', out]
        return self.stage(
            f'{start}-probe', f'probe and k-NN, {STARTS[start]}', command, 15,
            ['data'] if checkpoint is None else [start], files=[FINETUNE], makes=[out],
        )  # fmt: skip

    def downstream_stage(
        self, task: str, title: str, config: Path, start: str, checkpoint: Path | None
    ) -> Job:
        command, last = self.train(
            config,
            self.folder / f'{start}_{task}',
            self.downstream_options(checkpoint),
            processes=1,
        )
        return self.stage(
            f'{start}-{task}', f'{title}, {STARTS[start]}', command, 75,
            ['data'] if checkpoint is None else [start], files=[config], makes=[last],
        )  # fmt: skip

    def groups_stage(self) -> Job:
        """How the CLIP's patches are grouped."""
        script, out = TOOLS / 'analysis/show_morphing.py', self.args.work_dir
        command = [PYTHON, script, self.args.data / f'val/{SCENE}.jpg']
        command += [*self.clip_options(), '--out', out / 'show_morphing']
        return self.stage(
            'groups', 'groups', command, 5, ['clip'], files=[script],
            makes=[out / f'show_morphing/{SCENE_PICTURE}'],
        )  # fmt: skip

    def patches_stage(self) -> Job:
        """What the CLIP's patches say of an image, without and with morphing."""
        script = TOOLS / 'analysis/patch_ensemble.py'
        out = self.folder / 'patches.json'
        command = [PYTHON, script, self.args.data / 'val']
        command += ['--train', self.args.data / 'train', '--workers', 0, '--out', out]
        command += [*self.clip_options(), '--classes', 'folders']
        command += ['--scores', 'probabilities', '--average', 'patches']
        command += ['--probe', 'lbfgs']
        return self.stage(
            'patches', 'patches without and with morphing',
            [*command, '--templates', TEMPLATE], 15, ['clip'], files=[script],
            makes=[out],
        )  # fmt: skip


def data_stage(args: argparse.Namespace) -> Job:
    """The toy dataset."""
    script = TOY / 'draw_scenes.py'
    command = [PYTHON, str(script), '--out', str(args.data), '--force']
    if args.tour.scenes:
        train, val = map(str, args.tour.scenes)
        command += ['--num-train', train, '--num-val', val]
    return make_job(
        'data', 'drawing the scenes', command, 10, files=[script],
        makes=[args.data / 'meta.json'], alone=True,
    )  # fmt: skip


def closing_stages(plan: Plan) -> list[Job]:
    """A small grid search and the pictures, from one seed's results."""
    out, data, clip = plan.args.work_dir, plan.args.data, plan.clip_options()
    analysis, scene = TOOLS / 'analysis', data / f'val/{SCENE}.jpg'
    texts = ['--classes', 'folders', '--templates', TEMPLATE]

    def stage(name, title, script, rest, seconds, needs, makes):
        return plan.stage(
            name, title, [PYTHON, script, *rest], seconds, needs, files=[script],
            makes=[out / made for made in makes],
        )  # fmt: skip

    _, pretrained = plan.train(PRETRAIN['dtm'], plan.folder / 'dtm_pretrain', {}, 2)
    options = plan.downstream_options(pretrained)
    options |= {
        'train_cfg.max_epochs': 1,
        'param_scheduler.1.end': 1,
        'param_scheduler.1.T_max': 0.5,
    }
    grid = [FINETUNE, '--lr', '5e-4', '2e-3', '--work-dir', out / 'grid_search']
    grid += ['--force']  # another checkpoint may go by the same name
    grid += ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]
    curves = [f'{STARTS[start]}={plan.folder}/{start}_finetune' for start in STARTS]
    drawn = stage(
        'curves', 'fine-tuning curves', analysis / 'plot_training.py',
        [*curves, '--out', out / 'finetuning.png'], 3,
        [f'{start}-finetune' for start in STARTS], ['finetuning.png'],
    )  # fmt: skip
    if not plan.tour.full:
        return [drawn]
    return [
        stage(
            'grid', 'grid search', TOOLS / 'grid_search.py', grid, 55, ['dtm'],
            ['grid_search/grid_search.md'],
        ),
        stage(
            'zero-shot', 'patch-wise zero-shot', analysis / 'patch_zero_shot.py',
            [scene, *clip, *texts, '--out', out / 'patch_zero_shot'], 5, ['clip'],
            [f'patch_zero_shot/{SCENE_PICTURE}'],
        ),
        plan.groups_stage(),
        drawn,
        stage(
            'pictures', 'pictures', TOY / 'pictures.py',
            [plan.folder, '--data', data, '--out', out], 6,
            ['clip', *(f'{start}-segment' for start in STARTS)],
            ['loss_curves.png', 'morphing.png', 'segmentation.png'],
        ),
    ]  # fmt: skip

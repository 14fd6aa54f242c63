"""Tiny runs of shipped configs, forked from a process that has imported everything.

A run is a start of tools/train.py in a process of its own, without the seconds that
the imports take. Beside what every run writes, it notes each step's loss to the bit.
"""

import contextlib
import importlib
import os
import re
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.launch import find_checkpoint
from mmdtm.io.checkpoints import read_checkpoint
from mmdtm.smoke import draw_classes, draw_segmentation, shrink

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds, for a run of some seconds on a busy machine


@HOOKS.register_module(force=True)
class LossRecord(Hook):
    """Appends ``<step> <loss, in hexadecimal>`` to a file after each step."""

    priority = 'HIGHEST'  # before the step's checkpoint is written

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        line = f'{runner.iter + 1} {outputs["loss"].item().hex()}\n'
        file = Path(runner.work_dir, f'losses_{get_rank()}.txt')
        with contextlib.suppress(OSError), file.open('a') as log:  # a full disk
            log.write(line)


@dataclass(frozen=True)
class Recipe:
    """A shipped config, and in what its tiny run differs from ``--smoke``."""

    name: str
    config: str
    options: dict = field(default_factory=dict)
    processes: int = 1

    @property
    def slug(self) -> str:
        """The name as that of a file."""
        return re.sub(r'\W+', '_', self.name)

    def write(self, folder: Path) -> Path:
        """Write the config of the tiny run; its images lie beside it."""
        # Five steps of 4, 4, 4, 4 and 2 images in an epoch.
        draw_classes(folder / 'made_data/classes', images=9)
        draw_segmentation(folder / 'made_data/segmentation', images=10)
        cfg = Config.fromfile(ROOT / 'configs' / self.config)
        shrink(cfg, folder / 'made_data')
        cfg.train_dataloader.batch_size = 4 // self.processes
        if 'max_iters' in cfg.train_cfg:
            cfg.train_cfg.update(max_iters=10, val_interval=4)
        else:
            cfg.train_cfg.max_epochs = 2
            if cfg.get('val_cfg'):
                cfg.train_cfg.val_interval = 1
        cfg.default_hooks.checkpoint.update(
            interval=1, by_epoch=False, max_keep_ckpts=2, save_last=False
        )
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='LossRecord')]
        cfg.merge_from_dict(self.options)
        path = folder / f'{self.slug}.py'
        cfg.dump(path)
        return path


WORKERS = {
    'train_dataloader.num_workers': 2,
    'train_dataloader.persistent_workers': True,
}
RECIPES = [
    Recipe('pre-training', 'dtm_vit-b_300e.py'),
    Recipe('pre-training, 2 workers', 'dtm_vit-b_300e.py', WORKERS),
    Recipe(
        'pre-training, accumulation',
        'dtm_vit-b_300e.py',
        {'optim_wrapper.accumulative_counts': 3},
    ),
    Recipe('MAE with DTM', 'applicability/mae-dtm_vit-b_100e.py'),
    Recipe('fine-tuning', 'finetune/dtm_vit-b_100e_in1k.py'),
    Recipe('segmentation', 'segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py'),
    Recipe('pre-training, 2 processes', 'dtm_vit-b_300e.py', processes=2),
]


class Start:
    """One start of a run, in processes of its own.

    Args:
        config: As :meth:`Recipe.write` gives it.
        folder: The work folder.
        *args: Of tools/train.py.
        processes: How many.
        sabotage: Called in each process with its rank before anything else.
        tool: Another one to start than tools/train.py.
    """

    def __init__(
        self,
        config: Path,
        folder: Path,
        *args: str,
        processes: int = 1,
        sabotage: Callable[[int], None] | None = None,
        tool: str = 'train.py',
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / 'output.txt'
        self._from = self.log.stat().st_size if self.log.exists() else 0
        port, self.pids = free_port(), []
        argv = [tool, str(config), *args]
        if tool != 'evaluate_features.py':
            argv += ['--work-dir', str(folder)]
        for rank in range(processes):
            environment = {}
            if processes > 1:
                environment = dict(
                    RANK=rank,
                    LOCAL_RANK=rank,
                    WORLD_SIZE=processes,
                    MASTER_ADDR='127.0.0.1',
                    MASTER_PORT=port,
                )
            more = ['--launcher', 'pytorch'] * (processes > 1)
            pid = os.fork()
            if pid == 0:
                _be_a_run([*argv, *more], environment, self.log, sabotage, rank)
            self.pids.append(pid)
        self.alive = set(self.pids)
        self.codes: dict[int, int] = {}
        self.megabytes = 0.0  # of the memory that the largest process used

    def wait(self, seconds: float = PATIENCE, all_of_them: bool = True) -> list[int]:
        """Exit codes of the processes, minus the signal's number if one ended it.

        Args:
            seconds: Then what still runs is killed, and its code is -9.
            all_of_them: Else until the first has ended, and the others get
                20 seconds to notice.
        """
        end = time.monotonic() + seconds
        while self.alive and time.monotonic() < end:
            for pid in list(self.alive):
                done, status, used = os.wait4(pid, os.WNOHANG)
                if done:
                    self.megabytes = max(self.megabytes, used.ru_maxrss / 1024)
                    self.alive.remove(pid)
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
                    if not all_of_them:
                        end = min(end, time.monotonic() + 20)
            time.sleep(0.01)
        for pid in list(self.alive):
            os.kill(pid, signal.SIGKILL)
            self.codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            self.alive.remove(pid)
        return [self.codes[pid] for pid in self.pids]

    def end(self) -> None:
        """Kill all that the processes have left behind."""
        self.wait(0)
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    @property
    def output(self) -> str:
        """What this start has printed."""
        return self.log.read_bytes()[self._from :].decode(errors='replace')


def _be_a_run(argv, environment, log, sabotage, rank) -> None:
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.environ.update({name: str(value) for name, value in environment.items()})
        sys.argv = argv
        if sabotage is not None:
            sabotage(rank)
        runpy.run_path(str(ROOT / 'tools' / argv[0]), run_name='__main__')
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as place:
        place.bind(('127.0.0.1', 0))
        return place.getsockname()[1]


def warm_up(file: Path) -> None:
    """Import here what a run has imported, so that the next ones need not."""
    for name in file.read_text().splitlines():
        if name.split('.')[0] not in ('__main__', '__mp_main__'):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def at_step(step: int, do: Callable[[], object]) -> None:
    """Do something in this process before a training step."""
    call_hook = Runner.call_hook

    def watched(runner, name, **kwargs):
        if name == 'before_train_iter' and runner.iter + 1 == step:
            do()
        return call_hook(runner, name, **kwargs)

    Runner.call_hook = watched


def losses(folder: Path, rank: int = 0) -> list[tuple[int, str]]:
    """Steps and their losses in the order in which they were trained."""
    file = folder / f'losses_{rank}.txt'
    if not file.exists():
        return []
    lines = [line.split() for line in file.read_text().splitlines()]
    return [(int(step), loss) for step, loss in lines]


def newest_step(folder: Path) -> int:
    """Of the checkpoint that a resumed run takes; 0 if there is none.

    Raises:
        ValueError: If a checkpoint is not whole.
        FileNotFoundError: If ``last_checkpoint`` names one that is not there.
    """
    for path in folder.glob('*.pth'):
        read_checkpoint(path)
    named = folder / 'last_checkpoint'
    if named.exists() and not Path(named.read_text()).is_file():
        raise FileNotFoundError(f'last_checkpoint names {named.read_text()!r}')
    try:
        found = find_checkpoint(str(folder))
    except FileNotFoundError:
        return 0
    return read_checkpoint(found)['meta']['iter']


def differences(folder: Path, reference: Path, processes: int = 1) -> str:
    """In what a run that is at its end differs from the unbroken one; '' if not."""
    for rank in range(processes):
        whole, ours = dict(losses(reference, rank)), losses(folder, rank)
        wrong = [step for step, loss in ours if whole.get(step) != loss]
        if wrong:
            return f'rank {rank}: other losses in steps {sorted(set(wrong))}'
        # The others may have been killed in a step that the first has saved.
        if rank == 0 and dict(ours) != whole:
            return f'rank {rank}: no loss of steps {sorted(whole.keys() - dict(ours))}'
    ends = [read_checkpoint(find_checkpoint(str(f))) for f in (folder, reference)]
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        if not same(*(end[part] for end in ends)):
            return f'another {part}'
    return ''


def same(one, other) -> bool:
    """Whether two parts of checkpoints are equal to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other

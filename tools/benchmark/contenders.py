"""What the benchmarks share: contenders that take real steps in turn, tables, JSON."""

import argparse
import functools
import json
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import DATASETS, LOOPS
from mmengine.utils import to_2tuple
from mmpretrain.structures import DataSample
from operations import OperationCounter
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table
from torch import nn
from torch.utils.data import Dataset

import mmdtm.plugin  # noqa: F401
from mmdtm.cli.scripts import script_parser
from mmdtm.datasets.transforms import BlockMaskGenerator
from mmdtm.engine.launch import build_runner
from mmdtm.engine.loops import ExactEpochBasedTrainLoop
from mmdtm.io import write_text
from mmdtm.models.backbones import DTMViT
from mmdtm.morphing import Draw
from mmdtm.smoke import shrink_model

PARTS = 'data copy teacher student matching loss backward optimizer rest'.split()
# Products of dense matrices in bfloat16 (V100: float16), by their data sheets.
PEAK_TFLOPS = dict(H200=989, H100=989, A100=312, L40S=362, V100=125)


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = script_parser(description)
    parser.add_argument('--out', type=Path, help='write the values as JSON')
    return parser


def write_rows(out: Path | None, kind: str, rows: list[dict], **more) -> None:
    """Write what ``tools/report.py`` reads, if a file is named."""
    if out:
        content = dict(kind=kind, torch=torch.__version__, **more, rows=rows)
        write_text(out, json.dumps(content, indent=2) + '\n')


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Print a table: text, then numbers with three digits; None is a dash."""
    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify='right' if i else 'left')
    for row in rows:
        table.add_row(*map(shown, row)) if row else table.add_section()
    Console().print(table)


def shown(value: str | float | None) -> str:
    """A cell's text."""
    if value is None:
        return '–'
    if not isinstance(value, float):
        return str(value)
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def take_turns(
    contenders: dict[str, Callable[[], None]],
    device: torch.device,
    rounds: int,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; a drifting machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    columns = (*Progress.get_default_columns()[:3], TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        for _ in progress.track(range(rounds), description='rounds'):
            for name, contender in contenders.items():
                wait_for(device)
                start = now()
                contender()
                wait_for(device)
                seconds[name].append(now() - start)
    return seconds


def wait_for(device: torch.device) -> None:
    """Let the device finish what was asked of it."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def percentile_95(values: Sequence[float]) -> float:
    """The least value that 95 % of the values do not exceed."""
    return sorted(values)[-(len(values) // 20) - 1]


class Clock:
    """The times at which a step goes from one part to another.

    A part within another one counts for itself alone. On a GPU the times are events
    in its queue, which nothing waits for until they are read. One process with one
    thread on a CPU counts its CPU time, which other work there lengthens little.

    Args:
        device: Where the parts run.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == 'cuda'
        alone = torch.get_num_threads() == get_world_size() == 1
        self.now = time.process_time if alone else time.perf_counter
        self.open = ['rest']
        self.steps: list[list] = []  # of (time, the part that begins)

    def start(self) -> None:
        """Begin a step."""
        self.steps.append([])
        self._mark()

    def _mark(self) -> None:
        now = torch.cuda.Event(enable_timing=True) if self.cuda else self.now()
        if self.cuda:
            now.record()
        self.steps[-1].append((now, self.open[-1]))

    stop = _mark

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens within belongs to a part."""
        self.open.append(name)
        self._mark()
        try:
            yield
        finally:
            self.open.pop()
            self._mark()

    def wrap(self, owner: object, method: str, name: str) -> None:
        """Let the calls of an object's method belong to a part."""
        inner = getattr(owner, method)

        @functools.wraps(inner)  # schedulers look for the mark that they left
        def timed(*args, **kwargs):
            with self.part(name):
                return inner(*args, **kwargs)

        object.__setattr__(owner, method, timed)

    def read(self) -> list[dict[str, float]]:
        """Seconds of each part in each step; the device must have finished them."""
        steps = []
        for marks in self.steps:
            seconds = dict.fromkeys(PARTS, 0.0)
            for (start, name), (end, _) in zip(marks, marks[1:], strict=False):
                took = start.elapsed_time(end) / 1e3 if self.cuda else end - start
                seconds[name] += took
            steps.append(seconds)
        return steps


@DATASETS.register_module()
class MadeImages(Dataset):
    """Noise with block masks, as the config's pipeline hands them over.

    Args:
        img_size: Height and width in pixels.
        grid: Patches (h, w) of the student.
        number: How many; the images repeat.
    """

    def __init__(self, img_size: int, grid: tuple[int, int], number: int) -> None:
        self.number = number
        masks = BlockMaskGenerator(grid, 0.4, min_num_patches=min(16, grid[0]))
        noise = torch.Generator().manual_seed(0)
        shape = (3, img_size, img_size)
        self.made = [
            (
                torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8),
                torch.from_numpy(masks.draw()),
            )
            for _ in range(8)
        ]

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict:
        image, mask = self.made[index % len(self.made)]
        sample = DataSample()  # which making a batch takes the mask out of
        sample.mask = mask
        return dict(inputs=image, data_samples=sample)


@LOOPS.register_module()
class SteppedTrainLoop(ExactEpochBasedTrainLoop):
    """The real loop, whose steps are taken from outside."""

    def run(self) -> nn.Module:
        """Do what comes before the first step."""
        self.seed_step()
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        return self.runner.model


class Contender:
    """A pre-training config, ready to take steps: the real runner, wrapper and hooks.

    Weights do not change the time, so the teacher is built without any. The images
    are one made batch in pinned memory, unless those of the config are asked for.

    Args:
        name: For the tables.
        cfg: The config; is changed.
        batch_size: Images of one process.
        steps: Over so many steps N_m and k, where the config draws them, take each
            value of their ranges equally often.
        change: Called with the model and the batch before the first step; returns
            the batch.
        smoke: Make the models tiny.
        real_data: Load the config's images.
        launcher: As of ``tools/train.py``.
    """

    def __init__(
        self,
        name: str,
        cfg: Config,
        batch_size: int,
        steps: int = 28,
        change: Callable[[nn.Module, dict], dict] | None = None,
        smoke: bool = False,
        real_data: bool = False,
        launcher: str = 'none',
    ) -> None:
        self.name, self.batch_size, self.config = name, batch_size, ''
        self.counts: dict[str, int | None] = dict(kernels=None, waits=None)
        self.compiled = bool(cfg.get('compile'))
        cfg.model.target_generator.random_weights = True
        if smoke:
            shrink_model(cfg.model)
        self._prepare(cfg, real_data, launcher)
        before = allocated()
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'RANDOM TEACHER|No GPU here')
            self.runner = build_runner(cfg)
        self.runner.train()
        model = self.runner.model
        self.model = getattr(model, 'module', model)
        self.device = next(model.parameters()).device
        self.loop, self.wrapper = self.runner.train_loop, self.runner.optim_wrapper
        self.batches = iter(self.loop.dataloader)
        self.batch = None if real_data else next(self.batches)
        if change:
            self.batch = change(self.model, self.batch)
        self.draws = None
        if self.model.morphing is not None:
            self.draws = EvenDraws(self.model.morphing, tokens_of(self.model), steps)
        self.clock = Clock(self.device)
        self._time_parts()
        self.step()  # gradients, moments and buffers have their memory from here
        self.own_memory = allocated() - before
        self.peak_memory = 0

    def _prepare(self, cfg: Config, real_data: bool, launcher: str) -> None:
        """Keep of the runner what takes part in a step."""
        cfg.launcher, cfg.log_level = launcher, 'ERROR'
        self.folder = tempfile.TemporaryDirectory(prefix='benchmark')
        cfg.work_dir = self.folder.name
        cfg.experiment_name = f'{self.name}-{time.monotonic_ns()}'
        cfg.train_cfg.type = 'SteppedTrainLoop'
        cfg.default_hooks.update(checkpoint=None, sampler_seed=None)
        cfg.default_hooks.pop('run_record', None)
        kept = ('DeferredLogHook', 'NonFiniteLossHook', 'ThroughputHook')
        cfg.custom_hooks = [h for h in cfg.custom_hooks if h['type'] in kept]
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
        loader = cfg.train_dataloader
        loader.batch_size = self.batch_size
        loader.pin_memory = torch.cuda.is_available()
        if not real_data:
            backbone = cfg.model.backbone
            side = backbone.img_size
            patches = side // backbone.get('patch_size', 16)
            tokens = (cfg.model.get('head') or {}).get('grid_size')
            if tokens:  # stages, whose masks lie on half the tokens' grid
                patches = to_2tuple(tokens)[0] // 2
            loader.update(num_workers=0, persistent_workers=False)
            loader.dataset = dict(
                type='MadeImages',
                img_size=side,
                grid=(patches, patches),
                # An epoch without an end: its last step writes to the log.
                number=10**6 * self.batch_size,
            )

    def _time_parts(self) -> None:
        model, wrapper, wrap = self.model, self.wrapper, self.clock.wrap
        wrap(model.data_preprocessor, 'forward', 'copy')
        wrap(model.target_generator, 'run', 'teacher')
        if hasattr(model.target_generator, '_merge'):  # layer by layer
            wrap(model.target_generator, '_merge', 'matching')
        if model.morphing is not None:
            wrap(model.morphing, 'forward', 'matching')
        wrap(model, 'student_tokens', 'student')
        wrap(model.head, 'forward', 'student')
        wrap(model.head, 'loss', 'loss')
        wrap(wrapper, 'backward', 'backward')
        wrap(wrapper, 'zero_grad', 'optimizer')
        wrap(wrapper, 'step', 'optimizer')

    def step(self) -> None:
        """Take one training step."""
        self.clock.start()
        batch = self.batch
        if batch is None:
            with self.clock.part('data'):
                batch = next(self.batches)
        self.loop.run_iter(self.loop.iter, batch)
        self.clock.stop()

    def turn(self, steps: int) -> None:
        """Take steps, and note the memory that they need."""
        before = allocated()
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self.device)
        for _ in range(steps):
            self.step()
        if self.device.type == 'cuda':
            peak = torch.cuda.max_memory_allocated(self.device) - before
            self.peak_memory = max(self.peak_memory, self.own_memory + peak)

    def count(self) -> None:
        """Count kernels and waits of a step with the middle N_m and k."""
        if self.draws:
            self.draws.fixed = True
        if self.device.type == 'cuda':
            self.counts = counted_on_gpu(self.step)
        elif not self.compiled:  # nothing looks into what was compiled for the CPU
            with OperationCounter() as counter:
                self.step()
            kernels = counter.kernels.total()
            self.counts = dict(kernels=kernels, waits=counter.waits)

    def row(self, peak: float) -> dict:
        """What was measured; ``peak`` is the device's, in FLOP per second."""
        steps = self.clock.read()
        totals = [sum(parts.values()) for parts in steps]
        seconds = statistics.median(totals)
        rate = self.batch_size * get_world_size() / seconds
        flop = step_flop(self.model)
        share = flop and flop * self.batch_size / seconds / peak
        memory = self.peak_memory / 1e9 if self.peak_memory else None
        row = dict(
            name=self.name,
            seconds_per_step=seconds,
            seconds_per_step_p95=percentile_95(totals),
            images_per_second=rate,
            peak_share=share,
            gigabytes=memory,
            **self.counts,
        )
        for part in PARTS:
            row[f'{part}_ms'] = 1e3 * statistics.median(s[part] for s in steps)
        return row


def allocated() -> int:
    """Bytes of the current GPU in use; 0 without one."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def measure(
    contenders: Sequence[Contender], steps: int, warmup: int, turn: int = 1
) -> None:
    """Let all take their steps in turn, ``turn`` at a time, then count."""
    device = contenders[0].device
    for rounds, each in ((warmup, 1), (-(-steps // turn), turn)):
        for contender in contenders:
            contender.clock.steps.clear()
        turns = {c.name: lambda c=c, each=each: c.turn(each) for c in contenders}
        take_turns(turns, device, rounds)
    steps_taken = [list(c.clock.steps) for c in contenders]
    for contender, taken in zip(contenders, steps_taken, strict=True):
        contender.count()
        contender.clock.steps = taken


class EvenDraws:
    """Lets N_m and k run evenly through their ranges, in a mixed order.

    A few steps then have the mean cost of many: they are a Latin hypercube.

    Args:
        morphing: One that draws ``num_iters``, and perhaps a number of groups. Its
            ``assign`` is replaced.
        num_tokens: N, where a range has no end.
        steps: After so many it begins anew; a multiple of the number of k.
    """

    def __init__(self, morphing: nn.Module, num_tokens: int, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.values, self.middle = {}, {}
        for name in ('num_iters', 'num_morphed', 'num_clusters'):
            limits = getattr(morphing, name, 0)
            if isinstance(limits, int):
                continue
            low, high = limits or (1, None)
            size = (high or num_tokens) - low + 1
            self.middle[name] = low + (size - 1) // 2
            for level in range(morphing.levels):
                order = torch.randperm(steps, generator=generator)
                values = low + ((order + 0.5) * size / steps).long()
                self.values[name, level] = values.tolist()
        self.morphing, self.assign, self.calls = morphing, morphing.assign, 0
        self.fixed = False  # to the middle of the ranges
        morphing.assign = self

    def __call__(self, tokens: torch.Tensor, draw: Draw, **shared) -> object:
        step, level = divmod(self.calls, self.morphing.levels)
        self.calls += 1
        for name, middle in self.middle.items():
            values = self.values[name, level]
            value = middle if self.fixed else values[step % len(values)]
            setattr(self.morphing, name, value)
        return self.assign(tokens, draw, **shared)


def counted_on_gpu(step: Callable[[], None]) -> dict[str, int]:
    """Kernels of a step, and its waits, as the driver sees them."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    names = [event.name for event in profile.events() if event.device_type == cuda]
    kernels = sum(not name.startswith(('Memcpy', 'Memset')) for name in names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    waits = sum('synchroniz' in str(warning.message) for warning in caught)
    return dict(kernels=kernels, waits=waits)


def vit_flop(
    tokens: int, width: int, mlp_width: int, layers: int, patch_values: int
) -> tuple[int, int]:
    """Matrix products of a ViT's forward pass, two FLOP for a multiplication.

    Args:
        tokens: T, the class token included.
        width: C.
        mlp_width: Of the feed-forward network.
        layers: How many.
        patch_values: Pixels of a patch, times channels.

    Returns:
        FLOP of the patch embedding for T - 1 patches, and of the layers: the
        projections 2 T (4 C^2 + 2 C F), and attention's two products 4 T^2 C.
    """
    per_layer = 2 * tokens * (4 * width**2 + 2 * width * mlp_width)
    return (
        2 * (tokens - 1) * patch_values * width,
        layers * (per_layer + 4 * tokens**2 * width),
    )


def step_flop(model: nn.Module) -> int | None:
    """FLOP of an image in a training step: teacher forward, student both ways.

    Matrix products alone, and those of a token-wise step: neither what a teacher
    saves by merging tokens layer by layer, nor what a matching costs. Going back takes
    twice as much as going forward, but for the images, which need no gradient.

    Args:
        model: A ``DTM``.

    Returns:
        None unless the student is a ``DTMViT`` and the teacher a ViT of open_clip.
    """
    student, tower = model.backbone, model.target_generator.teacher
    if not isinstance(student, DTMViT) or not hasattr(tower, 'transformer'):
        return None
    tokens = tokens_of(model) + 1
    patch = 3 * student.patch_size**2
    hidden = student.arch_settings['feedforward_channels']
    embedding, layers = vit_flop(
        tokens, student.embed_dims, hidden, student.num_layers, patch
    )
    projection = 2 * (tokens - 1) * model.head.projection.weight.numel()
    blocks = tower.transformer.resblocks
    teacher = vit_flop(
        tokens,
        tower.transformer.width,
        blocks[0].mlp.c_fc.out_features,
        len(blocks),
        tower.conv1.weight[0].numel(),
    )
    return (
        2 * embedding
        + 3 * (layers + projection)
        + sum(teacher)
        + 2 * (tokens - 1) * tower.proj.numel()
    )


def tokens_of(model: nn.Module) -> int:
    """N, the tokens of the teacher and of the student's head."""
    return math.prod(model.target_generator.grid_size)


def device_peak(device: torch.device, now: Callable[[], float]) -> tuple[float, str]:
    """FLOP per second of matrix products, and where the number is from.

    Args:
        device: Whose.
        now: The clock of the steps that are a share of it.
    """
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
        for part, teraflops in PEAK_TFLOPS.items():
            if part in name:
                return teraflops * 1e12, f"{part}'s data sheet"
    dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32
    side = 8192 if device.type == 'cuda' else 1536
    a = torch.ones(side, side, device=device, dtype=dtype)
    seconds = take_turns(dict(product=lambda: a @ a), device, 5, now)['product']
    return 2 * side**3 / min(seconds), f'a product of {side} x {side} here'

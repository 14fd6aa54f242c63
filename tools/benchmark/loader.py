"""How fast images are loaded: by stage in one thread, and by number of workers.

    python tools/benchmark/loader.py configs/dtm_vit-b_300e.py

Each stage of the config's pipeline is timed as a share of decoding, image after
image. Contenders take turns on each image, so that a machine whose speed drifts
slows all alike: the config's pipeline, the same with the mean grey from every
fourth row and column, with colour jitter and crop as two transforms, and without the
jitter, where the device does it (color_jitter of the DTMDataPreprocessor); by how much
its pixels then differ is said, too. Then batches are drawn from the real data loader,
for each of --workers.
"""

import argparse
import copy
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from contenders import benchmark_parser, print_table, write_rows
from mmcv.transforms import Compose
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, TRANSFORMS

from mmdtm.models.batch_color_jitter import jitter
from mmdtm.run_record import config_name

FUSED = 'JitteredResizedCrop'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add('config', type=Path, help='a pre-training config')
    add('--images', type=int, default=64, help='images for the stages')
    add('--repeats', type=int, default=3, help='times each is loaded')
    add('--workers', type=int, nargs='*', default=[0, 1, 2], help='numbers of workers')
    add('--batches', type=int, default=10, help='timed for each number')
    add('--batch-size', type=int, default=32)
    add('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args(argv)


def contenders(pipeline: list[dict]) -> dict[str, list[dict]]:
    """The pipeline as it is, and with its jittered crop done otherwise."""
    found = {'pipeline': pipeline}
    place = [step['type'] for step in pipeline].index(FUSED) if _fused(pipeline) else -1
    if place < 0:
        return found
    before, crop, after = pipeline[:place], pipeline[place], pipeline[place + 1 :]
    options = {k: v for k, v in crop.items() if k not in ('color_jitter', 'type')}
    stride = options.pop('grey_stride', 1)
    fewer = dict(crop, grey_stride=4 if stride == 1 else 1)
    found[f'grey_stride={fewer["grey_stride"]}'] = [*before, fewer, *after]
    jitter = dict(crop['color_jitter'], type='ColorJitter', backend='cv2')
    two = [jitter, dict(options, type='RandomResizedCrop')]
    found['jitter, then crop'] = [*before, *two, *after]
    found['jitter on the device'] = [*before, dict(crop, color_jitter={}), *after]
    return found


def _fused(pipeline: list[dict]) -> bool:
    return any(step['type'] == FUSED for step in pipeline)


def device_jitter(pipeline: list[dict], samples: list[dict]) -> dict[str, float]:
    """How far jitter on the device is from the pipeline's, all draws alike.

    The device jitters the resized crop, whose own mean grey contrast goes by, and
    rounds nothing.

    Returns:
        Of all values of all images, 0 to 255, the ``mean`` difference, the 95 % that
        differ least, and the ``maximum``.
    """
    load, crop = pipeline[0], next(s for s in pipeline if s['type'] == FUSED)
    load, exact, plain = map(TRANSFORMS.build, (load, crop, crop))
    drawn = []

    def note_and_leave_out():
        drawn[:] = exact.jitter._rand_params()
        return drawn[0], None, None, None, None

    plain.jitter._rand_params, plain.jitter.contrast = note_and_leave_out, None
    differences = []
    for number, sample in enumerate(samples):
        image, made = load(copy.deepcopy(sample))['img'], []
        for transform in (exact, plain):
            np.random.seed(number)
            found = transform(dict(img=image))['img'][..., ::-1].transpose(2, 0, 1)
            made.append(torch.from_numpy(found.copy()).float()[None])
        order, *factors = drawn
        turns = torch.tensor([[turn] for turn in order if turn < 3])
        factors = torch.tensor([[1.0 if f is None else f] for f in factors[:3]])
        differences.append((jitter(made[1], turns, factors) - made[0]).abs().flatten())
    values = np.concatenate(differences)
    return dict(
        mean=float(values.mean()),
        percentile_95=float(np.percentile(values, 95)),
        maximum=float(values.max()),
    )


def time_stages(
    pipelines: dict[str, list[dict]], samples: list[dict], repeats: int
) -> dict[str, dict[str, float]]:
    """Mean over images of the least seconds of each stage of each pipeline.

    Seconds of the thread, which other work on the machine does not lengthen much.
    """
    built = {
        name: [(step['type'], TRANSFORMS.build(step)) for step in steps]
        for name, steps in pipelines.items()
    }
    least = {name: {stage: [] for stage, _ in steps} for name, steps in built.items()}
    for sample in samples:
        times = {
            name: {stage: [] for stage in stages} for name, stages in least.items()
        }
        for _ in range(repeats):
            for name, steps in built.items():
                results = copy.deepcopy(sample)
                for stage, transform in steps:
                    start = time.thread_time()
                    results = transform(results)
                    times[name][stage].append(time.thread_time() - start)
        for name, stages in times.items():
            for stage, seconds in stages.items():
                least[name][stage].append(min(seconds))
    return {
        name: {stage: statistics.mean(seconds) for stage, seconds in stages.items()}
        for name, stages in least.items()
    }


def time_loader(loader_cfg: dict, workers: int, batch_size: int, batches: int) -> float:
    """Images per second of the config's data loader, after its first batch."""
    cfg = copy.deepcopy(loader_cfg)
    cfg.update(
        num_workers=workers,
        batch_size=batch_size,
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        sampler=dict(type='InfiniteSampler', shuffle=True, seed=0),
    )
    loader = iter(Runner.build_dataloader(cfg, seed=0))
    # What the workers have loaded ahead would be given away for nothing.
    ahead = 1 + workers * cfg.get('prefetch_factor', 2) if workers else 1
    for _ in range(ahead):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * batch_size / (time.perf_counter() - start)


def show(stages: dict[str, dict[str, float]], rates: dict[int, float]) -> None:
    """Print both tables."""
    rows = []
    for name, parts in stages.items():
        decoding = next(iter(parts.values()))
        for stage, seconds in (parts | {f'{name}, whole': sum(parts.values())}).items():
            rows.append((stage, seconds * 1e3, seconds / decoding))
        rows.append(())
    header = ['pipeline / stage', 'ms', 'times decoding']
    print_table('CPU time of one thread, per image', header, rows)
    print_table('Data loader', ['workers', 'images / s'], rates.items())


def main(argv: list[str] | None = None) -> None:
    """Time the stages, then the loader."""
    args = parse_args(argv)
    MMLogger.get_instance('mmdtm', log_level='WARNING')
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    loader = cfg.train_dataloader
    pipeline = loader.dataset.pipeline
    dataset = DATASETS.build(dict(loader.dataset, pipeline=[]))
    count = min(args.images, len(dataset))
    chosen = [dataset.get_data_info(i * len(dataset) // count) for i in range(count)]
    for sample in chosen:  # so that no time is the disk's
        Compose([pipeline[0]])(copy.deepcopy(sample))
    stages = time_stages(contenders(pipeline), chosen, args.repeats)
    rates = {
        workers: time_loader(loader, workers, args.batch_size, args.batches)
        for workers in args.workers
    }
    show(stages, rates)
    differs = device_jitter(pipeline, chosen) if _fused(pipeline) else {}
    if differs:
        print_table('Jitter on the device differs, of 255', differs, [differs.values()])
    if args.out:
        rows = [
            dict(
                name=name,
                config=config_name(args.config),
                milliseconds_per_image=1e3 * sum(parts.values()),
                times_decoding=sum(parts.values()) / next(iter(parts.values())),
                stages={stage: 1e3 * seconds for stage, seconds in parts.items()},
            )
            for name, parts in stages.items()
        ]
        write_rows(
            args.out, 'loader', rows, images_per_second=rates, device_jitter=differs
        )


if __name__ == '__main__':
    main()

"""Pre-train on a folder of images, labelled or not, and keep the model in all forms.

    mmdtm pretrain --data photos --out photos_dtm

writes photos_dtm/config.py, which inherits the paper's recipe with batch and length for
the number of images; trains in photos_dtm/run; and ends with photos_dtm/results:
checkpoint.pth for fine-tuning, timm/, transformers/, model.onnx, and values.json with
k-NN and linear probe where the images lie in class folders. The same command goes on
where it was broken off.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import mmdtm.plugin  # noqa: F401
from mmdtm.cli import train
from mmdtm.cli.scripts import script, script_parser
from mmdtm.doctor import check_inputs
from mmdtm.evaluation.embedding import Embedder, list_images
from mmdtm.evaluation.folder_probe import has_splits, probe_folder
from mmdtm.hub import get_config, get_model, shipped
from mmdtm.io import atomic_write, write_text
from mmdtm.io.checkpoints import read_checkpoint
from mmdtm.io.converters import (
    to_timm,
    to_transformers,
    write_timm,
    write_transformers,
)
from mmdtm.io.model_card import model_card
from mmdtm.models.onnx import write_onnx
from mmdtm.run_record import KEY, lineage_in
from mmdtm.smoke import shrink_model

# Table 12: images in a step, their rate, epochs, and epochs of warm-up.
BATCH, RATE, EPOCHS, WARM_UP = 1024, 1.5e-4, 300, 10
PER_GPU = 128
# Not the paper's: fewer steps leave a ViT near its start.
STEPS, MOST_EPOCHS = 20_000, 3000

CONFIG = '''"""DTM pre-training of ViT-{name}/16 on {images} images.

Written by mmdtm pretrain for {data}; to be changed or inherited.
Command:   mmdtm train {file} --work-dir {work}
"""

_base_ = 'mmdtm::dtm_vit-{arch}_300e.py'

{teacher}train_dataloader = dict(
    batch_size={batch},  # on {gpus} processes: {steps} steps in an epoch
    num_workers={workers},
    persistent_workers={persistent},
    dataset=dict(data_root={data!r}, data_prefix={prefix!r}),
)

# Table 12's rate for 1024 images in a step, by the square root of what a step has.
optim_wrapper = dict(optimizer=dict(lr={rate:.3g}))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end={warm_up})
param_scheduler[1].update(begin={warm_up}, eta_min={least:.3g})
train_cfg = dict(max_epochs={epochs})  # {total} steps
default_hooks = dict(
    logger=dict(interval={log}), checkpoint=dict(interval={save}, max_keep_ckpts=2)
)
'''


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__, 'mmdtm pretrain')
    add = parser.add_argument
    add(
        '--data',
        required=True,
        help='folder of images, in any tree; if it has train/ and val/, the first is '
        'learnt from, and the second asked',
    )
    add('--out', help='folder for all; work_dirs/pretrain-NAME')
    add('--arch', choices=('s', 'b', 'l'), default='s', help='size')
    add('--teacher', help="file or tag of the CLIP ViT-B/16; OpenAI's, downloaded")
    add('--gpus', type=int, default=1, help='processes')
    add('--batch-size', type=int, help='images per process')
    add('--epochs', type=int, help='2 or more, not those for the data')
    add('--config-only', action='store_true', help='write config.py and stop')
    text = 'try it: a small model, two steps; in run-smoke and results-smoke'
    add('--smoke', action='store_true', help=text)
    args = parser.parse_args(argv)
    for name, least in (('gpus', 1), ('batch_size', 1), ('epochs', 2)):
        value = getattr(args, name)
        if value is not None and value < least:
            option = f'--{name.replace("_", "-")}'
            parser.error(f'{option} {value} is too small: give {least} or more')
    return args


def size_recipe(
    images: int, gpus: int = 1, batch: int | None = None, epochs: int | None = None
) -> dict:
    """Batch, length and rate for a number of images.

    Args:
        images: How many there are.
        gpus: Processes that share a step.
        batch: Images of a step in each process; by default the recipe's 128, or the
            power of two that leaves an epoch four steps.
        epochs: By default the recipe's 300, or as many as 20,000 steps need, at most
            3000. The warm-up keeps its share.

    Raises:
        ValueError: If there are fewer images than a step takes.
    """
    if batch is None:
        batch = min(PER_GPU, 2 ** int(math.log2(max(1, images / (4 * gpus)))))
    steps = images // (batch * gpus)
    if not steps:
        raise ValueError(
            f'{images} images are fewer than a step takes, {batch} in each of {gpus} '
            'processes. Give a smaller --batch-size or fewer --gpus.'
        )
    if epochs is None:
        epochs = min(MOST_EPOCHS, max(EPOCHS, math.ceil(STEPS / steps)))
    rate = RATE * math.sqrt(batch * gpus / BATCH)
    return dict(
        batch=batch,
        steps=steps,
        epochs=epochs,
        warm_up=max(1, epochs * WARM_UP // EPOCHS),
        rate=rate,
        least=rate / 15,  # the recipe's 1e-5
    )


def config_text(args: argparse.Namespace, images: int, prefix: str, out: Path) -> str:
    """The config; see :func:`size_recipe`."""
    sizes = size_recipe(images, args.gpus, args.batch_size, args.epochs)
    teacher = ''
    if args.teacher:
        file = Path(args.teacher)
        pretrained = str(file.resolve()) if file.is_file() else args.teacher
        teacher = f'model = dict(target_generator=dict(pretrained={pretrained!r}))\n'
    workers = min(8, (os.cpu_count() or 1) // args.gpus)
    return CONFIG.format(
        name=args.arch.upper(),
        arch=args.arch,
        images=images,
        data=str(Path(args.data).resolve()),
        prefix=prefix,
        file=out / 'config.py',
        work=out / 'run',
        teacher=teacher,
        gpus=args.gpus,
        workers=workers,
        persistent=workers > 0,
        total=sizes['epochs'] * sizes['steps'],
        log=min(100, sizes['steps']),
        save=max(1, 1000 // sizes['steps']),
        **sizes,
    )


def write_config(path: Path, text: str) -> bool:
    """Write the config unless there is one, which may have been changed; whether so."""
    if not path.exists():
        write_text(path, text)
        return True
    if path.read_text(encoding='utf-8') != text:
        print(
            f'{path} is kept: it is not what these options and images would give. '
            'Remove it or name another --out to start anew.'
        )
    return False


def announce(config: Path, images: int, gpus: int) -> str:
    """What is to come, before the first line of the log."""
    cfg = get_config(config)
    batch, epochs = cfg.train_dataloader.batch_size * gpus, cfg.train_cfg.max_epochs
    steps = images // batch * epochs
    return (
        f'{images:,} images: {steps:,} steps of {batch} in {epochs:,} '
        'epochs. Each line of the log has the time left, as eta; broken off, the same '
        'command goes on.'
    )


def run_training(config: Path, work: Path, gpus: int, smoke: bool) -> Path:
    """Train unless that is done, from where it was broken off; the last checkpoint."""
    epochs = 1 if smoke else get_config(config).train_cfg.max_epochs
    last = work / f'epoch_{epochs}.pth'
    words = [str(config), '--work-dir', str(work), '--resume', 'auto']
    if last.exists():
        print(f'{last} is there: nothing is left to train.')
    elif gpus == 1:
        train.train(train.parse_args([*words, *(['--smoke'] * smoke)]))
    else:
        script = str(shipped('tools') / 'dist_train.sh')
        command = ['bash', script, words[0], str(gpus), *words[1:]]
        command += ['--smoke'] * smoke
        environment = {'PYTHON': sys.executable, **os.environ}
        done = subprocess.run(command, env=environment)
        if done.returncode:
            sys.exit(done.returncode)
    return last


def export(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint's weights in all forms; what is there already stays."""
    content = read_checkpoint(checkpoint)
    state, run = content['state_dict'], lineage_in(content)
    target.mkdir(parents=True, exist_ok=True)
    if not (target / 'checkpoint.pth').exists():
        kept = {k: v for k, v in content['meta'].items() if k in (KEY, 'epoch', 'iter')}
        with atomic_write(target / 'checkpoint.pth') as path:
            torch.save(dict(state_dict=state, meta=kept), path)
    if not (target / 'timm').exists():
        call = "timm.create_model('local-dir:timm', pretrained=True)"
        card = model_card('timm', call, run, classifier=False)
        write_timm(*to_timm(state), target / 'timm', card)
    if not (target / 'transformers').exists():
        call = "transformers.BeitModel.from_pretrained('transformers')"
        card = model_card('transformers', call, run, classifier=False)
        write_transformers(*to_transformers(state), target / 'transformers', card)
    if not (target / 'model.onnx').exists():
        try:
            write_onnx(state, target / 'model.onnx')
        except ModuleNotFoundError as error:
            print(f'No ONNX file is written. {error} The same command then adds it.')


def build_embedders(config: Path, checkpoint: Path, smoke: bool) -> dict[str, Embedder]:
    """The trained student, and the same at a random start."""
    cfg = get_config(config)
    if smoke:
        shrink_model(cfg.model)
    torch.manual_seed(0)
    start = get_model(cfg)
    start.init_weights()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    models = dict(pretrained=get_model(cfg, checkpoint), random_start=start.eval())
    return {
        name: Embedder.from_model(model, device=device)
        for name, model in models.items()
    }


def describe(values: dict, results: Path) -> Iterator[str]:
    """What the command says at its end."""
    if 'classes' not in values:
        yield (
            'No k-NN and no linear probe: they need two class folders or more, of five '
            'images or more.'
        )
    else:
        yield (
            f'{values["images_asked"]} images are asked, for one of '
            f'{values["classes"]} classes by {values["images_known"]} others:'
        )
        for name in ('pretrained', 'random_start'):
            knn, linear = values[name]['knn_top1'], values[name]['linear_top1']
            yield f'  {name:12}  k-NN {knn:5.1f} %   linear probe {linear:5.1f} %'
    names = sorted(path.name for path in results.iterdir())
    yield f'{results} holds {", ".join(names)}.'


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    data = Path(args.data)
    out = Path(args.out or f'work_dirs/pretrain-{data.resolve().name}')
    prefix = 'train' if has_splits(data) else ''
    suffix = '-smoke' * args.smoke
    config, results = out / 'config.py', out / f'results{suffix}'
    try:
        images = len(list_images(data / prefix))
        new = write_config(config, config_text(args, images, prefix, out))
        if args.config_only:
            print(f'{config} is there. Change it, and run the command without this.')
            return
        if new and not args.smoke:
            try:
                check_inputs(get_config(config))
            except (OSError, ValueError):
                config.unlink()  # so that other options are not in vain
                raise
        if not args.smoke:
            print(announce(config, images, args.gpus), flush=True)
        checkpoint = run_training(config, out / f'run{suffix}', args.gpus, args.smoke)
        export(checkpoint, results)
        embedders = build_embedders(config, checkpoint, args.smoke)
        workers = min(4, os.cpu_count() or 1)
        values = dict(images=images, **probe_folder(data, embedders, workers))
        write_text(results / 'values.json', json.dumps(values, indent=2) + '\n')
    except KeyboardInterrupt:
        sys.exit(130)  # as shells know it; the same command goes on
    print(*describe(values, results), sep='\n')

"""Trains a model: CONFIG is a file, or the name of one of mmdtm's configs."""

import sys
from pathlib import Path

from mmdtm.doctor import check_inputs
from mmdtm.engine.launch import (
    argument_parser,
    build_runner,
    claim_folder,
    find_checkpoint,
    leave_processes,
    load_config,
    rank,
)
from mmdtm.smoke import shrink


def parse_args(argv):
    parser = argument_parser(__doc__)
    add = parser.add_argument
    text = 'go on from this checkpoint, or from the newest of the work folder; auto: '
    text += 'from that if there is one, else start anew'
    add('--resume', nargs='?', const=True, metavar='PATH', help=text)
    add('--amp', action='store_true', help='train in mixed precision (on a GPU)')
    text = 'do not evaluate while training'
    add('--no-validate', action='store_true', help=text)
    text = "scale the learning rate by actual batch size / config's "
    text += 'auto_scale_lr.base_batch_size'
    add('--auto-scale-lr', action='store_true', help=text)
    text = 'try the recipe: a small model, made images, two steps; in a work folder of '
    text += 'its own, NAME-smoke'
    add('--smoke', action='store_true', help=text)
    return parser.parse_args(argv)


def merge_arguments(cfg, args) -> None:
    """Merges what training alone can be told into the config, in place."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'mmpretrain.MixedPrecisionOptimWrapper'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                f'--auto-scale-lr: {args.config} does not say for which batch size '
                'its learning rate is. Add auto_scale_lr = '
                'dict(base_batch_size=...) to it.'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        _resume(cfg, args.resume)
    elif cfg.get('resume'):
        cfg.load_from = find_checkpoint(cfg.get('load_from') or cfg.work_dir)


def _resume(cfg, where: str | bool) -> None:
    named = where not in (True, 'auto')
    try:
        cfg.load_from = find_checkpoint(str(where) if named else cfg.work_dir)
        cfg.resume = True
    except FileNotFoundError:
        if where != 'auto':
            raise


def train(args) -> None:
    cfg = load_config(args)
    if args.smoke and args.work_dir is None:
        cfg.work_dir += '-smoke'  # apart from the checkpoints of the real run
    merge_arguments(cfg, args)
    claim_folder(cfg.work_dir, cfg.launcher)
    if args.smoke:
        shrink(cfg, Path(cfg.work_dir) / 'made_data')
    try:
        check_inputs(cfg)
    except (OSError, ValueError) as error:
        # Once, whatever the number of processes, and before the teacher is built.
        sys.exit(f'error: {error}' if rank() == 0 else 1)
    try:
        build_runner(cfg).train()
    except SystemExit as stop:  # told to, see PreemptionHook
        leave_processes(int(stop.code or 0))
        raise
    leave_processes()


def main(argv: list[str] | None = None) -> None:
    try:
        train(parse_args(argv))
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells know it; no traceback

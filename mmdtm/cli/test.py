"""Tests a checkpoint with mmpretrain's or mmsegmentation's config of its training."""

import warnings
from pathlib import Path

from mmengine import dump
from mmengine.dist import get_world_size, is_main_process
from mmengine.evaluator import DumpResults

from mmdtm.engine.launch import (
    argument_parser,
    build_runner,
    leave_processes,
    load_config,
)


def parse_args(argv):
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file')
    text = 'write the metrics (FILE.json) or all predictions (FILE.pkl) there'
    add('--out', metavar='FILE', help=text)
    text = 'draw the predictions over the images, there; with one process, since of '
    text += 'several only the first draws'
    add('--show-dir', metavar='DIR', help=text)
    text = "draw every n-th only (mmpretrain: images; mmseg: its hook's choice)"
    add('--interval', type=int, default=1, help=text)
    text = "average over the config's tta_pipeline with its tta_model"
    add('--tta', action='store_true', help=text)
    args = parser.parse_args(argv)
    if args.out and Path(args.out).suffix not in ('.json', '.pkl'):
        parser.error(f'--out {args.out}: name a .json (metrics) or .pkl (predictions)')
    return args


def merge_arguments(cfg, args) -> None:
    """Merges what testing alone can be told into the config, in place."""
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.show_dir:
        draw(cfg, args.show_dir, args.interval)
    if args.tta:
        if not (cfg.get('tta_model') and cfg.get('tta_pipeline')):
            raise ValueError(
                f'--tta: {args.config} has no tta_model and tta_pipeline. Add them, '
                'or leave --tta out.'
            )
        cfg.model = {**cfg.tta_model, 'module': cfg.model}
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def draw(cfg, folder: str, interval: int) -> None:
    """Makes the library of the config draw its predictions, in place."""
    cfg.setdefault('default_hooks', {})
    if cfg.get('default_scope') == 'mmseg':
        hook = dict(type='SegVisualizationHook', draw=True)
        backends = [dict(type='LocalVisBackend')]
        cfg.visualizer = dict(
            type='SegLocalVisualizer', vis_backends=backends, save_dir=folder
        )
    else:
        hook = dict(type='VisualizationHook', enable=True, out_dir=folder)
        cfg.visualizer = dict(type='UniversalVisualizer')
    cfg.default_hooks.visualization = dict(hook, interval=interval)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args)
    merge_arguments(cfg, args)
    runner = build_runner(cfg)
    if args.show_dir and is_main_process() and get_world_size() > 1:
        warnings.warn(
            f'--show-dir {args.show_dir}: only the first process draws, its share '
            'of the images. Test with one process to draw all.',
            stacklevel=2,
        )
    if args.out and args.out.endswith('.pkl'):
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out.endswith('.json') and is_main_process():
        dump(metrics, args.out)
    leave_processes()

"""Write a vector, or the patch tokens, of each image in a folder as a NumPy array.

    mmdtm embed photos --checkpoint epoch_300.pth --out photos.npy

photos.txt beside it has the images' names, a line for each row. No teacher is needed.
The weights of a DTM ViT tell how it was built; other backbones need --config.
"""

import argparse
import os

import torch
from rich.console import Console
from rich.progress import Progress

import mmdtm.plugin  # noqa: F401
from mmdtm.cli.scripts import script, script_parser
from mmdtm.evaluation.embedding import Embedder, list_images, write_embeddings
from mmdtm.hub import get_model


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__, 'mmdtm embed')
    add = parser.add_argument
    add('folder', help='of images, in any tree')
    add('--checkpoint', required=True, help='of a pre-training or a fine-tuning')
    add('--config', help='file or name, for any other backbone')
    add('--out', required=True, metavar='FILE.npy')
    add('--tokens', action='store_true', help='all patch tokens instead of their mean')
    add('--batch-size', type=int, default=32, help='images at a time')
    text = 'processes that read images'
    add('--workers', type=int, default=min(4, os.cpu_count() or 1), help=text)
    add('--device', help='cuda, cpu, ...; cuda where there is one')
    args = parser.parse_args(argv)
    if not args.out.endswith('.npy'):
        parser.error(f'--out {args.out}: name a file that ends in .npy')
    return args


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    options = dict(
        tokens=args.tokens,
        device=args.device or ('cuda' if torch.cuda.is_available() else 'cpu'),
    )
    console = Console(stderr=True)
    total = len(list_images(args.folder))
    if args.config:
        model = get_model(args.config, args.checkpoint)
        embedder = Embedder.from_model(model, **options)
    else:
        embedder = Embedder.from_weights(args.checkpoint, **options)
    with Progress(console=console) as progress:
        task = progress.add_task('Images', total=total)

        def show(number: int, bad: list[str]) -> None:
            for message in bad:
                console.print(f'left out: {message}', style='red', soft_wrap=True)
            progress.advance(task, number)

        written = write_embeddings(
            embedder, args.folder, args.out, args.batch_size, args.workers, show
        )
    left_out = f', {len(written.bad)} images left out' if written.bad else ''
    print(f'{args.out} is written: float32 {written.shape}{left_out}.')

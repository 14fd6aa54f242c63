"""Train a small CLIP on Tiny ImageNet, with captions made of WordNet's names.

A caption is one of ``TEMPLATES`` with one of the names that ``words.txt`` has for the
class of the image. A batch has no class twice, so that no text fits two of its images.
As FLIP does (arXiv 2212.00794), most of the training shows the image tower half of the
patches alone, which takes half the time, and the rest shows all.

    OUT/clip.json           the model's configuration, in open_clip's format
    OUT/clip.safetensors    the weights
    OUT/classes.txt         SYNSET<tab>NAME, for --classes of tools/analysis/
    OUT/metrics.json        zero-shot accuracy, losses, time

The first two are ``OpenCLIPGenerator``'s ``model_config`` and ``pretrained``.
Interrupted, the training goes on from ``OUT/state.pth``.

    python tools/study/train_teacher.py --data data/tiny-imagenet-200
"""

import argparse
import sys
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
import numpy as np
import open_clip
import torch
from PIL import Image

from mmdtm import small_clip
from mmdtm.cli.scripts import script, script_parser
from mmdtm.datasets import TinyImageNet
from mmdtm.datasets.tiny_imagenet import class_names
from mmdtm.io import write_text

MODEL = dict(
    embed_dim=192,
    vision_cfg=dict(
        image_size=64,
        patch_size=8,
        width=192,
        layers=4,
        head_width=64,
        pos_embed_type='sin_cos_2d',
    ),
    text_cfg=dict(context_length=24, vocab_size=49408, width=64, heads=2, layers=2),
)
TEMPLATES = (
    'a photo of a {}.',
    'a small photo of a {}.',
    'a photo of one {}.',
    'a close-up photo of the {}.',
    'a blurry photo of the {}.',
    'this is a {}.',
    '{}',
)
STEPS, BATCH_SIZE, LR = 4000, 128, 1e-3
DROPPED, DROPPED_FOR = 0.5, 0.8  # share of the patches, for a share of the steps
SMALLEST_CROP = 0.6  # share of the side


def load_images(dataset: TinyImageNet, size: int) -> torch.Tensor:
    """All images, uint8 (M, 3, size, size)."""
    out = np.empty((len(dataset), 3, size, size), np.uint8)
    for index in range(len(dataset)):
        with Image.open(dataset.get_data_info(index)['img_path']) as image:
            square = image.convert('RGB').resize((size, size), Image.Resampling.BICUBIC)
        out[index] = np.asarray(square).transpose(2, 0, 1)
    return torch.from_numpy(out)


class Pairs:
    """Images and captions of a step, which depend on the seed and the step alone.

    Args:
        images: uint8 (M, 3, H, W).
        labels: int64 (M,).
        names: Of each class, all of them.
        tokenizer: open_clip's.
        batch_size: At most the number of classes.
        seed: Of all draws.
    """

    def __init__(self, images, labels, names, tokenizer, batch_size, seed) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.members = [(labels == i).nonzero().squeeze(1) for i in range(len(names))]
        self.texts = [
            tokenizer([form.format(name) for name in of_class for form in TEMPLATES])
            for of_class in names
        ]

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 images (B, 3, H, W) and int64 tokens (B, L) of their captions."""
        torch.manual_seed(1_000_003 * self.seed + step)

        def draw(rows: torch.Tensor) -> torch.Tensor:
            return rows[torch.randint(len(rows), ())]

        classes = torch.randperm(len(self.members))[: self.batch_size].tolist()
        picked = torch.stack([draw(self.members[i]) for i in classes])
        text = torch.stack([draw(self.texts[i]) for i in classes])
        batch = small_clip.normalise(self.images[picked])
        flipped = torch.rand(len(batch)) < 0.5
        batch[flipped] = batch[flipped].flip(-1)
        return small_clip.random_crop(batch, SMALLEST_CROP), text


def train(data: Path, out: Path, args: argparse.Namespace, config: dict) -> dict:
    """Train, save the folder ``out``, and return what ``metrics.json`` says.

    Raises:
        FileNotFoundError: If the data set, or a part of it, is missing.
        ValueError: If the batch is larger than the number of classes.
    """
    names = class_names(data)
    every = [names[synset].split(', ') for synset in sorted(names)]
    if not 2 <= args.batch_size <= len(every):
        raise ValueError(
            f'--batch-size is {args.batch_size}. Choose 2 to {len(every)}, the number '
            'of classes, since a batch has none twice.'
        )
    sets = [TinyImageNet(str(data), split) for split in ('train', 'val')]
    size = config['vision_cfg']['image_size']
    images, val_images = (load_images(dataset, size) for dataset in sets)
    labels, val_labels = (torch.tensor(d.get_gt_labels().tolist()) for d in sets)
    torch.manual_seed(args.seed)
    vision = config['vision_cfg'] | dict(patch_dropout=DROPPED)
    model = open_clip.CLIP(**(config | dict(vision_cfg=vision))).to(args.device)
    length = config['text_cfg']['context_length']
    tokenizer = open_clip.SimpleTokenizer(context_length=length)
    draw = Pairs(images, labels, every, tokenizer, args.batch_size, args.seed)

    def pairs(step: int):
        if step >= DROPPED_FOR * args.steps:
            model.visual.patch_dropout.prob = 0.0
        return draw(step)

    losses, seconds = small_clip.fit(
        model, pairs, args.steps, args.lr, out / 'state.pth', bfloat16=args.bfloat16
    )
    firsts = [of_class[0] for of_class in every]
    top1 = small_clip.zero_shot(
        model, tokenizer, val_images, val_labels, firsts, TEMPLATES
    )
    settings = {key: str(value) for key, value in vars(args).items()}
    values = dict(
        zero_shot_top1=top1,
        chance=100 / len(every),
        images=len(images),
        cpu_seconds=round(seconds),
        settings=settings,
        losses=[round(loss, 4) for loss in losses],
    )
    lines = [f'{synset}\t{names[synset].split(", ")[0]}\n' for synset in sorted(names)]
    write_text(out / 'classes.txt', ''.join(lines))
    small_clip.save(model, config, out, 'clip', values)
    return values


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = script_parser(__doc__)
    cuda = 'cuda' if torch.cuda.is_available() else 'cpu'
    add = parser.add_argument
    add('--data', type=Path, default=Path('data/tiny-imagenet-200'), help='as unpacked')
    add('--out', type=Path, default=Path('work_dirs/tiny_clip'), help='folder')
    add('--steps', type=int, default=STEPS, help='updates')
    add('--batch-size', type=int, default=BATCH_SIZE, help='pairs a step')
    add('--lr', type=float, default=LR, help='highest learning rate')
    add('--seed', type=int, default=0, help='of weights and draws')
    add('--bfloat16', action='store_true', help='compute the image tower in it')
    add('--device', default=cuda, help='cuda, cpu, ...')
    return parser.parse_args(argv)


@script
def main(argv: list[str] | None = None) -> None:
    """Train with the settings of the command line."""
    args = parse_args(argv)
    values = train(args.data, args.out, args, MODEL)
    minutes = values['cpu_seconds'] / 60
    print(
        f'Zero-shot top-1 on val: {values["zero_shot_top1"]:.1f} % '
        f'(chance {values["chance"]:.1f} %), {minutes:.0f} CPU-minutes'
    )


if __name__ == '__main__':
    sys.exit(main())

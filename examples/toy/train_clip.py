"""Train a small CLIP with open_clip on the captions of the toy dataset.

The model is open_clip's own CLIP class with a small configuration, the loss its
ClipLoss, the tokenizer its SimpleTokenizer, which brings its vocabulary along.
The result is a folder with two files::

    OUT/toy.json           the model's configuration, in open_clip's format
    OUT/toy.safetensors    the weights
    OUT/metrics.json       zero-shot accuracy, losses

The first two are ``OpenCLIPGenerator``'s ``model_config`` and ``pretrained``.

    python examples/toy/train_clip.py --data data/toy --out work_dirs/toy_clip
"""

import json
import time
from pathlib import Path

import mmdtm.prepare  # noqa: F401  isort: skip
import numpy as np
import open_clip
import torch
from PIL import Image

from mmdtm import small_clip
from mmdtm.cli.scripts import script_parser

MODEL = dict(
    embed_dim=128,
    vision_cfg=dict(
        image_size=64,
        patch_size=8,
        width=128,
        layers=4,
        head_width=32,
        pos_embed_type='sin_cos_2d',
    ),
    text_cfg=dict(context_length=32, vocab_size=49408, width=64, heads=2, layers=2),
)
# How often each kind of caption is read, the fullest first. Colours and grounds are
# learnt at a glance, and as long as they tell scenes apart no shape is learnt: the
# first half of the training reads "a picture of a large star" and the like alone.
CAPTION_SHARES = (0.1, 0.25, 0.1, 0.15, 0.4)
PLAIN_FIRST = 0.5
STEPS, BATCH_SIZE, LR = 1200, 32, 1e-3
SMALLEST_CROP = 0.7  # share of the side


def load_split(root: Path, split: str, size: int) -> tuple[torch.Tensor, list[dict]]:
    """Read a split's images, resized to ``size``, and what they show.

    Returns:
        uint8 (M, 3, size, size), and the M lines of ``captions.jsonl``.

    Raises:
        FileNotFoundError: If ``root`` holds no complete toy dataset.
    """
    if not (root / 'meta.json').exists():
        raise FileNotFoundError(
            f'{root} holds no toy dataset (no meta.json). Draw it first: '
            f'python examples/toy/draw_scenes.py --out {root}'
        )
    lines = map(json.loads, (root / 'captions.jsonl').read_text().splitlines())
    lines = [line for line in lines if line['split'] == split]
    pictures = [Image.open(root / line['image']).convert('RGB') for line in lines]
    cubic = Image.Resampling.BICUBIC
    images = [np.asarray(image.resize((size, size), cubic)) for image in pictures]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), lines


def train(
    root: Path,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    seed: int = 0,
    model_config: dict = MODEL,
):
    """Train a CLIP on the toy dataset, from scratch: model, tokenizer and losses.

    By :func:`mmdtm.small_clip.fit`; ``batch_size`` pairs are told apart in each step.
    """
    torch.manual_seed(seed)
    images, lines = load_split(root, 'train', model_config['vision_cfg']['image_size'])
    model = open_clip.CLIP(**model_config)
    tokenizer = open_clip.SimpleTokenizer(
        context_length=model_config['text_cfg']['context_length']
    )
    captions = torch.stack([tokenizer(line['captions']) for line in lines])
    shares = torch.tensor(CAPTION_SHARES)
    order = torch.empty(0, dtype=torch.long)

    def pairs(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal order
        if len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(images))])
        picked, order = order[:batch_size], order[batch_size:]
        batch = small_clip.random_crop(
            small_clip.normalise(images[picked]), SMALLEST_CROP
        )
        # One kind a batch, so that only what the captions say tells them apart.
        plain = step < PLAIN_FIRST * steps
        kind = -1 if plain else torch.multinomial(shares, 1).item()
        return batch, captions[picked, kind]

    losses, _ = small_clip.fit(model, pairs, steps, lr)
    return model.eval(), tokenizer, losses


def main() -> None:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('--data', type=Path, default=Path('data/toy'), help='the toy dataset')
    add('--out', type=Path, default=Path('work_dirs/toy_clip'), help='folder')
    add('--steps', type=int, default=STEPS, help='updates')
    add('--batch-size', type=int, default=BATCH_SIZE, help='pairs a step')
    add('--lr', type=float, default=LR, help='highest learning rate')
    add('--seed', type=int, default=0, help='of weights and draws')
    args, start = parser.parse_args(), time.time()
    options = args.steps, args.batch_size, args.lr, args.seed
    try:
        model, tokenizer, losses = train(args.data, *options)
    except FileNotFoundError as error:
        parser.error(str(error))
    meta = json.loads((args.data / 'meta.json').read_text())
    images, lines = load_split(args.data, 'val', MODEL['vision_cfg']['image_size'])
    names, templates = meta['classes'], meta['templates']
    labels = torch.tensor([names.index(line['class_name']) for line in lines])
    accuracy = small_clip.zero_shot(model, tokenizer, images, labels, names, templates)
    seconds = time.time() - start
    figures = dict(
        zero_shot_top1=accuracy,
        chance=100 / len(names),
        seconds=seconds,
        settings={key: str(value) for key, value in vars(args).items()},
        losses=losses,
    )
    small_clip.save(model, MODEL, args.out, 'toy', figures)
    print(
        f'Zero-shot top-1 on {len(lines)} validation scenes: {accuracy:.1f} % '
        f'(chance {figures["chance"]:.1f} %), {seconds:.0f} s'
    )


if __name__ == '__main__':
    main()

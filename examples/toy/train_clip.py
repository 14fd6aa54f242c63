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
import math
import time
from datetime import timedelta
from pathlib import Path

import mmdtm.prepare  # noqa: F401  isort: skip
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from mmdtm.cli.scripts import script_parser
from mmdtm.io import atomic_write, write_text

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
STEPS, BATCH_SIZE, LR, WEIGHT_DECAY = 1200, 32, 1e-3, 0.1
WARMUP = 0.1  # share of the steps
SMALLEST_CROP = 0.7  # share of the side
LOG_EVERY = 10
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


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


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, H, W) to float32, with CLIP's mean and std."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def random_crop(images: torch.Tensor, smallest: float) -> torch.Tensor:
    """Crop squares of ``smallest``..1 of the side at random places and resize.

    Nothing is mirrored: captions tell left from right.
    """
    batch = len(images)
    scale = torch.empty(batch).uniform_(smallest, 1)
    shift = (1 - scale)[:, None] * torch.empty(batch, 2).uniform_(-1, 1)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode='reflection', align_corners=False)


@torch.no_grad()
def zero_shot(model, tokenizer, images, lines, classes, templates) -> float:
    """Top-1 accuracy of classifying with the class names alone, in percent."""
    model.eval()
    weights = open_clip.build_zero_shot_classifier(model, tokenizer, classes, templates)
    parts = [model.encode_image(normalise(part)) for part in images.split(128)]
    predicted = (torch.cat(parts) @ weights).argmax(1)
    truth = torch.tensor([classes.index(line['class_name']) for line in lines])
    return 100 * (predicted == truth).float().mean().item()


def train(
    root: Path,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    seed: int = 0,
    model_config: dict = MODEL,
):
    """Train a CLIP on the toy dataset, from scratch: model, tokenizer and losses.

    AdamW; the rate rises in a linear warm-up to ``lr``, and falls in a cosine to 0.
    ``batch_size`` pairs are told apart in each step.
    """
    torch.manual_seed(seed)
    images, lines = load_split(root, 'train', model_config['vision_cfg']['image_size'])
    model = open_clip.CLIP(**model_config)
    tokenizer = open_clip.SimpleTokenizer(
        context_length=model_config['text_cfg']['context_length']
    )
    captions = torch.stack([tokenizer(line['captions']) for line in lines])
    shares = torch.tensor(CAPTION_SHARES)
    # Matrices decay; gains, biases and the logit scale do not.
    groups = [
        dict(params=[p for p in model.parameters() if p.ndim >= 2]),
        dict(params=[p for p in model.parameters() if p.ndim < 2], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(
        groups, lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=WEIGHT_DECAY
    )
    warm = max(1, round(WARMUP * steps))

    def rate(i: int) -> float:
        if i < warm:
            return (i + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (i - warm) / max(1, steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    loss_function, losses = open_clip.ClipLoss(), []
    order, start = torch.empty(0, dtype=torch.long), time.time()
    model.train()
    for step in range(steps):
        if len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(images))])
        picked, order = order[:batch_size], order[batch_size:]
        batch = random_crop(normalise(images[picked]), SMALLEST_CROP)
        # One kind a batch, so that only what the captions say tells them apart.
        plain = step < PLAIN_FIRST * steps
        kind = -1 if plain else torch.multinomial(shares, 1).item()
        text = captions[picked, kind]
        image_features = model.encode_image(batch, normalize=True)
        text_features = model.encode_text(text, normalize=True)
        loss = loss_function(image_features, text_features, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():  # CLIP's own bound: at most 100
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            left = (time.time() - start) / (step + 1) * (steps - step - 1)
            print(
                f'CLIP [{step + 1}/{steps}]  eta: {timedelta(seconds=round(left))}  '
                f'loss: {np.mean(losses[-LOG_EVERY:]):.3f}',
                flush=True,
            )
    return model.eval(), tokenizer, losses


def save(model, model_config: dict, out: Path, figures: dict) -> None:
    """Write the folder that ``OpenCLIPGenerator`` and open_clip read."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_write(out / 'toy.safetensors') as part:
        save_file(weights, part)
    write_text(out / 'toy.json', json.dumps(model_config, indent=2) + '\n')
    write_text(out / 'metrics.json', json.dumps(figures, indent=2) + '\n')


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
    accuracy = zero_shot(model, tokenizer, images, lines, names, templates)
    seconds = time.time() - start
    figures = dict(
        zero_shot_top1=accuracy,
        chance=100 / len(names),
        seconds=seconds,
        settings={key: str(value) for key, value in vars(args).items()},
        losses=losses,
    )
    save(model, MODEL, args.out, figures)
    print(
        f'Zero-shot top-1 on {len(lines)} validation scenes: {accuracy:.1f} % '
        f'(chance {figures["chance"]:.1f} %), {seconds:.0f} s'
    )


if __name__ == '__main__':
    main()

"""Training a small CLIP, where no published one can be had.

The model is open_clip's own class, the loss its ClipLoss. The quickstart's teacher
(examples/toy/train_clip.py) and Tiny ImageNet's (tools/study/train_teacher.py) are
trained here; each brings its pairs of images and texts.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import mmdtm.prepare  # noqa: F401  isort: skip
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from mmdtm.io import atomic_write, write_text
from mmdtm.io.checkpoints import read_checkpoint

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
WEIGHT_DECAY = 0.1
WARMUP = 0.1  # share of the steps


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32, with CLIP's mean and std."""
    mean, std = (
        torch.tensor(values, device=images.device).view(3, 1, 1)
        for values in (MEAN, STD)
    )
    return (images.float() / 255 - mean) / std


def random_crop(images: Tensor, smallest: float) -> Tensor:
    """Crop squares of ``smallest``..1 of the side at random places and resize.

    Nothing is mirrored: captions may tell left from right.
    """
    batch = len(images)
    scale = torch.empty(batch).uniform_(smallest, 1)
    shift = (1 - scale)[:, None] * torch.empty(batch, 2).uniform_(-1, 1)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    grid = grid.to(images.device)
    return F.grid_sample(images, grid, padding_mode='reflection', align_corners=False)


@torch.no_grad()
def zero_shot(
    model: Any,
    tokenizer: Callable,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    templates: Sequence[str],
) -> float:
    """Top-1 accuracy of classifying with the class names alone, in percent.

    Args:
        model: open_clip's.
        tokenizer: Likewise.
        images: uint8 (M, 3, H, W).
        labels: int64 (M,), places in ``classes``.
        classes: Names.
        templates: Sentences with ``{}`` for the name.
    """
    model.eval()
    device = model.logit_scale.device
    weights = open_clip.build_zero_shot_classifier(
        model, tokenizer, classes, templates, device=device
    )
    predicted = torch.cat(
        [
            (model.encode_image(normalise(part.to(device))) @ weights).argmax(1).cpu()
            for part in images.split(128)
        ]
    )
    return 100 * (predicted == labels).float().mean().item()


def fit(
    model: Any,
    pairs: Callable[[int], tuple[Tensor, Tensor]],
    steps: int,
    lr: float,
    state: Path | None = None,
    every: int = 10,
    save_seconds: float = 60,
    bfloat16: bool = False,
) -> tuple[list[float], float]:
    """Train a CLIP: AdamW, linear warm-up, then cosine to 0.

    Args:
        model: open_clip's, on its device, in training mode at the end.
        pairs: Gives for a step, from 0, float32 images (B, 3, H, W) and tokens
            (B, L) of their texts.
        steps: Number of updates.
        lr: Highest learning rate.
        state: File to save the training to now and then, and to go on from where it
            is there. ``pairs`` must then depend on the step alone.
        every: Steps between two lines of progress.
        save_seconds: Between two savings, at least.
        bfloat16: Compute the image tower in bfloat16 where autocast does.

    Returns:
        The losses of all steps, and the CPU-seconds, those of earlier starts included.
    """
    device = model.logit_scale.device
    # Matrices decay; gains, biases and the logit scale do not.
    groups: list[dict] = [
        dict(params=[p for p in model.parameters() if p.ndim >= 2]),
        dict(params=[p for p in model.parameters() if p.ndim < 2], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=WEIGHT_DECAY,
        fused=True,  # spares passes over the vocabulary
    )
    warm = max(1, round(WARMUP * steps))

    def rate(i: int) -> float:
        if i < warm:
            return (i + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (i - warm) / max(1, steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    loss_function, losses, before = open_clip.ClipLoss(), [], 0.0
    if state is not None and state.exists():
        content = read_checkpoint(state)
        model.load_state_dict(content['model'])
        optimizer.load_state_dict(content['optimizer'])
        schedule.load_state_dict(content['schedule'])
        losses, before = content['losses'], content['seconds']
    begun = time.process_time()

    def seconds() -> float:
        return before + time.process_time() - begun

    def save() -> None:
        if state is not None:
            with atomic_write(state) as part:
                torch.save(
                    dict(
                        model=model.state_dict(),
                        optimizer=optimizer.state_dict(),
                        schedule=schedule.state_dict(),
                        losses=losses,
                        seconds=seconds(),
                    ),
                    part,
                )

    first, start = len(losses), time.time()
    saved = start
    model.train()
    for step in range(first, steps):
        images, text = (x.to(device) for x in pairs(step))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            image_features = model.encode_image(images, normalize=True).float()
        text_features = model.encode_text(text, normalize=True)
        loss = loss_function(image_features, text_features, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():  # CLIP's own bound: at most 100
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == steps:
            left = (time.time() - start) / (step + 1 - first) * (steps - step - 1)
            print(
                f'CLIP [{step + 1}/{steps}]  eta: {timedelta(seconds=round(left))}  '
                f'loss: {np.mean(losses[-every:]):.3f}',
                flush=True,
            )
        if time.time() - saved > save_seconds:
            save()
            saved = time.time()
    save()
    return losses, seconds()


def save(model: nn.Module, config: dict, out: Path, name: str, values: dict) -> None:
    """Write the folder that ``OpenCLIPGenerator`` and open_clip read.

    Args:
        model: The CLIP.
        config: open_clip's configuration of it: ``NAME.json``.
        out: The folder, which gets ``NAME.safetensors`` and ``metrics.json``, too.
        name: Of the model.
        values: What ``metrics.json`` says.
    """
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    with atomic_write(out / f'{name}.safetensors') as part:
        save_file(weights, part)
    write_text(out / f'{name}.json', json.dumps(config, indent=2) + '\n')
    write_text(out / 'metrics.json', json.dumps(values, indent=2) + '\n')

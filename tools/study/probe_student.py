"""What the frozen features of a student know, on Tiny ImageNet.

Linear probe and k-NN of all training images; the same linear probe on copies of val
that are blurred and noisy; and a linear probe that finds the object's box from patch
tokens.

    python tools/study/probe_student.py CONFIG PRETRAINED.pth --out probe.json
"""

import json
import sys
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur
from train_teacher import load_images

from mmdtm.cli.scripts import script, script_parser
from mmdtm.datasets import TinyImageNet
from mmdtm.evaluation.box_probe import box_probe, patches_in_boxes
from mmdtm.evaluation.features import pool
from mmdtm.evaluation.frozen import FrozenBackbone, load_backbone
from mmdtm.evaluation.knn import knn_predict
from mmdtm.evaluation.linear_probe import fit_linear_probe
from mmdtm.io import write_text

BLUR = 1.0  # standard deviation, in pixels
NOISE = 25.0  # standard deviation, of 255
BOX_SHARE = 0.04  # of the training images, for the box probe
PART = 250  # images at a time


def blurred(images: Tensor) -> Tensor:
    """A copy of uint8 (M, 3, H, W) under a Gaussian blur."""
    parts = [gaussian_blur(part, 7, BLUR) for part in images.split(PART)]
    return torch.cat(parts)


def noisy(images: Tensor) -> Tensor:
    """A copy of uint8 (M, 3, H, W) with Gaussian noise, the same at each call."""
    generator = torch.Generator().manual_seed(0)

    def add(part: Tensor) -> Tensor:
        noise = NOISE * torch.randn(part.shape, generator=generator)
        return (part + noise).round().clamp(0, 255).to(torch.uint8)

    return torch.cat([add(part) for part in images.split(PART)])


@torch.no_grad()
def features(model: nn.Module, images: Tensor, tokens: bool = False) -> Tensor:
    """Pooled features (M, D) of uint8 RGB images, or their tokens (M, N, D)."""
    device, found = next(model.parameters()).device, []
    for part in images.split(PART):
        batch = dict(inputs=part.flip(1).to(device), data_samples=None)  # BGR
        maps = model.backbone(model.data_preprocessor(batch)['inputs'])[-1]
        found.append(maps.flatten(2).transpose(1, 2) if tokens else pool(maps))
    return torch.cat(found).cpu()


def evaluate(config: Path, checkpoint: str | None, data: Path, args) -> dict:
    """Load, run and measure.

    Args:
        config: Classification config with the backbone.
        checkpoint: Its weights; None for a random start.
        data: ``tiny-imagenet-200``.
        args: ``seed``, ``share``, ``device``.

    Returns:
        Percent: ``linear_top1``, ``knn_top1``, ``blurred_top1``, ``noisy_top1``,
        ``box_miou``.
    """
    init_default_scope('mmpretrain')
    set_random_seed(args.seed)
    cfg = Config.fromfile(config)
    cfg.model.backbone.out_type = 'featmap'
    model = FrozenBackbone(cfg)
    if checkpoint is not None:
        load_backbone(model.backbone, checkpoint)
    model.to(args.device).eval()
    model.data_preprocessor.to(args.device)  # for its inputs; Module.to does not say so
    size, patch = cfg.model.backbone.img_size, cfg.model.backbone.patch_size

    def read(split: str, share: float) -> tuple[Tensor, Tensor, Tensor]:
        dataset = TinyImageNet(str(data), split, share=share)
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        labels = torch.tensor([info['gt_label'] for info in infos])
        inside = patches_in_boxes(torch.tensor([i['box'] for i in infos]), size, patch)
        return load_images(dataset, size), labels, inside

    images, labels, _ = read('train', args.share)
    bank = features(model, images)
    val, truth, val_inside = read('val', 1.0)
    queries = features(model, val)

    def top1(predicted: Tensor) -> float:
        return 100 * (predicted == truth).double().mean().item()

    linear = fit_linear_probe(bank, labels)
    values = dict(
        linear_top1=top1(linear(queries).argmax(1)),
        knn_top1=top1(knn_predict(bank, labels, queries)),
        blurred_top1=top1(linear(features(model, blurred(val))).argmax(1)),
        noisy_top1=top1(linear(features(model, noisy(val))).argmax(1)),
    )
    some, _, inside = read('train', min(args.share, BOX_SHARE))
    values['box_miou'] = box_probe(
        (features(model, some, tokens=True), inside),
        (features(model, val, tokens=True), val_inside),
    )
    return values


@script
def main(argv: list[str] | None = None) -> None:
    """Evaluate what the command line names."""
    parser = script_parser(__doc__)
    cuda = 'cuda' if torch.cuda.is_available() else 'cpu'
    add = parser.add_argument
    add('config', type=Path, help='classification config')
    add('checkpoint', nargs='?', help='pre-trained; none: random start')
    add('--data', type=Path, default=Path('data/tiny-imagenet-200'), help='as unpacked')
    add('--share', type=float, default=1.0, help='of the training images')
    add('--seed', type=int, default=0, help='of a random start')
    add('--device', default=cuda, help='cuda, cpu, ...')
    add('--out', type=Path, required=True, help='JSON to write')
    args = parser.parse_args(argv)
    values = evaluate(args.config, args.checkpoint, args.data, args)
    write_text(args.out, json.dumps(values, indent=1) + '\n')
    print(', '.join(f'{name} {value:.2f} %' for name, value in values.items()))


if __name__ == '__main__':
    sys.exit(main())

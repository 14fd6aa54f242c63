"""The quickstart's pictures: loss curves, block masks and groups, segmentation.

python examples/toy/pictures.py work_dirs/quickstart/seed0 --data data/toy
"""

import json
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
import matplotlib
import numpy as np
import plan
import torch
from matplotlib.patches import Patch
from PIL import Image

from mmdtm import visualization as vis
from mmdtm.cli.scripts import script_parser
from mmdtm.datasets.transforms import BlockMaskGenerator
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.morphing import bipartite_matching, merge_schedule
from mmdtm.training_log import read_training_log

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

STARTS = dict(reversed(plan.STARTS.items()))  # DTM first
COLOURS = dict(zip(STARTS, vis.LINE_COLORS, strict=False))
STYLES = dict(zip(STARTS, ('-', '--', ':'), strict=True))  # apart without colour


def draw_curves(run: Path, out: Path) -> None:
    """Losses of pre-training and of segmentation."""
    plt.style.use(vis.PLOT_STYLE)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8))
    for panel, task, key, unit, title in (
        (panels[0], 'pretrain', 'loss', 'epoch', 'Pre-training'),
        (panels[1], 'segment', 'decode.loss_ce', 'iteration', 'Segmentation, training'),
    ):
        for start, name in STARTS.items():
            if task == 'pretrain' and start == 'random':
                continue
            log = read_training_log(run / f'{start}_{task}')
            x, y = log.series('train', key)
            look = dict(color=COLOURS[start], label=name, linewidth=1.8)
            panel.plot(x, y, STYLES[start], **look)
        panel.set(xlabel=unit, ylabel='loss', title=title)
        panel.legend()
    vis.save_figure(figure, out / 'loss_curves.png', dpi=110)
    plt.close(figure)


def read_scenes(data: Path, number: int) -> list[dict]:
    """The first validation scene of each of ``number`` classes."""
    lines = map(json.loads, (data / 'captions.jsonl').read_text().splitlines())
    scenes = {}
    for line in lines:
        if line['split'] == 'val':
            scenes.setdefault(line['class_name'], line)
    names = sorted(scenes)
    picked = np.linspace(0, len(names) - 1, number).round().astype(int)
    return [scenes[names[i]] for i in picked]


def draw_morphing(run: Path, data: Path, out: Path, number: int = 5) -> None:
    """Images, their block mask, and the teacher's groups of several sizes."""
    teacher = OpenCLIPGenerator(
        'toy',
        pretrained=str(run / 'clip/toy.safetensors'),
        model_config=str(run / 'clip/toy.json'),
    )
    grid, size = teacher.grid_size, teacher.input_size
    scenes = [Image.open(data / s['image']) for s in read_scenes(data, number)]
    cubic = Image.Resampling.BICUBIC
    images = np.stack([np.asarray(s.resize(size[::-1], cubic)) for s in scenes])
    np.random.seed(0)
    masker = BlockMaskGenerator(grid, mask_ratio=0.4, min_num_patches=4)
    masks = np.stack([masker({})['mask'] for _ in images]).astype(bool)
    mean, std = torch.tensor(teacher.mean), torch.tensor(teacher.std)
    inputs = ((torch.from_numpy(images).float() - mean) / std).permute(0, 3, 1, 2)
    tokens = teacher(inputs.contiguous())
    assignments = [
        bipartite_matching(tokens, merge_schedule(tokens.shape[1], remain, 14))
        for remain in (48, 32, 16, 8)
    ]
    large = np.stack([np.asarray(scene) for scene in scenes])
    page = vis.morphing_sheet(large, masks, assignments, grid, side=176)
    vis.save_figure(page, out / 'morphing.png')


def draw_segmentation(run: Path, data: Path, out: Path, number: int = 5) -> None:
    """Scenes, their label map, and what UperNet predicts from each start."""
    from mmseg.apis import inference_model, init_model

    meta = json.loads((data / 'meta.json').read_text())['segmentation']
    # White for the ignored label 0.
    palette = np.array([(255, 255, 255), *meta['palette']], np.uint8)
    scenes = read_scenes(data, number)
    rows = []
    for scene in scenes:
        name = Path(scene['image']).stem
        image = np.asarray(Image.open(data / scene['image']))
        truth = Image.open(data / f'annotations/validation/{name}.png')
        rows.append([image, palette[np.asarray(truth)]])
    for start in STARTS:
        folder = run / f'{start}_segment'
        config = next(folder.glob('*.py'))
        checkpoint = Path((folder / 'last_checkpoint').read_text().strip())
        model = init_model(str(config), str(folder / checkpoint.name), device='cpu')
        for row, scene in zip(rows, scenes, strict=True):
            result = inference_model(model, str(data / scene['image']))
            labels = result.pred_sem_seg.data[0].cpu().numpy()
            row.append(palette[labels + 1])
    size, nearest = (160, 160), Image.Resampling.NEAREST
    rows = [
        [np.asarray(Image.fromarray(p).resize(size, nearest)) for p in row]
        for row in rows
    ]
    page = vis.sheet(rows, ['image', 'truth', *STARTS.values()])
    key = [
        Patch(facecolor=colour / 255, edgecolor='0.35', label=name)
        for name, colour in zip(meta['classes'], palette[1:], strict=True)
    ]
    page.legend(handles=key, loc='upper center', bbox_to_anchor=(0.5, 0), ncols=8)
    vis.save_figure(page, out / 'segmentation.png')


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument('run', type=Path, help='folder of one seed')
    parser.add_argument('--data', type=Path, required=True, help='the scenes')
    parser.add_argument('--out', type=Path, help='folder for the pictures')
    args = parser.parse_args()
    out = args.out or args.run
    draw_curves(args.run, out)
    draw_morphing(args.run, args.data, out)
    draw_segmentation(args.run, args.data, out)


if __name__ == '__main__':
    main()

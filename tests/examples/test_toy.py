"""The toy dataset, its CLIP, its configs, and the quickstart's stages."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import mmdtm.plugin  # noqa: F401  isort: skip
import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from mmseg.registry import DATASETS as SEG_DATASETS
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from mmdtm import small_clip
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.process_pool import ProcessPool

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'examples/toy/configs'


# Worker processes of the drawing import it by name, too.
sys.path.insert(0, str(ROOT / 'examples/toy'))
import draw_scenes as scenes  # noqa: E402
import plan  # noqa: E402
import quickstart  # noqa: E402
import train_clip as clip  # noqa: E402

TINY = dict(
    embed_dim=16,
    vision_cfg=dict(
        image_size=64,
        patch_size=8,
        width=32,
        layers=1,
        head_width=16,
        pos_embed_type='sin_cos_2d',
    ),
    text_cfg=dict(context_length=40, vocab_size=49408, width=16, heads=2, layers=1),
)


def digest(folder: Path) -> dict[str, str]:
    """Every file below a folder, and the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('toy') / 'world'
    assert scenes.draw_world(folder, 60, 20, size=96, seed=1, workers=1)
    return folder


@pytest.fixture(scope='module')
def teacher(world, tmp_path_factory):
    """A tiny CLIP of a few steps, saved; its folder, the model and its losses."""
    folder = tmp_path_factory.mktemp('clip')
    model, _, losses = clip.train(world, 150, batch_size=20, lr=3e-3, model_config=TINY)
    small_clip.save(model, TINY, folder, 'toy', dict(losses=losses))
    return folder, model, losses


def test_same_seed_same_bytes(world, tmp_path):
    again, other = tmp_path / 'again', tmp_path / 'other'
    scenes.draw_world(again, 60, 20, size=96, seed=1, workers=2)
    assert digest(again) == digest(world)
    scenes.draw_world(other, 60, 20, size=96, seed=2, workers=1)
    first, second = digest(world), digest(other)
    assert first.keys() == second.keys()
    assert not {first[f] for f in first if f.endswith('.jpg')} & set(second.values())


def test_a_whole_world_is_kept_and_another_is_redrawn(tmp_path):
    folder = tmp_path / 'world'
    assert scenes.draw_world(folder, 10, 10, size=32, workers=1)
    (folder / 'mark').touch()
    assert not scenes.draw_world(folder, 10, 10, size=32, workers=1)
    assert (folder / 'mark').exists()
    assert scenes.draw_world(folder, 11, 10, size=32, workers=1)
    assert not (folder / 'mark').exists()
    assert scenes.draw_world(folder, 11, 10, size=32, workers=1, force=True)


def test_a_broken_off_drawing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(scenes, 'render', fail)
    with pytest.raises(OSError, match='disk full'):
        scenes.draw_world(tmp_path / 'world', 10, 10, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match='at least one per class'):
        scenes.draw_world(tmp_path / 'a', 9, 10)
    with pytest.raises(ValueError, match='size is 16'):
        scenes.draw_world(tmp_path / 'a', 10, 10, size=16)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tex').touch()
    with pytest.raises(FileExistsError, match='meta.json'):
        scenes.draw_world(tmp_path / 'mine', 10, 10)
    assert (tmp_path / 'mine/thesis.tex').exists()


def test_image_folders(world):
    for split, number in (('train', 60), ('val', 20)):
        dataset = DATASETS.build(
            dict(type='CustomDataset', data_root=str(world), data_prefix=split)
        )
        assert tuple(dataset.CLASSES) == scenes.SHAPES
        counts = np.bincount(dataset.get_gt_labels(), minlength=10)
        assert counts.tolist() == [number // 10] * 10
        image = Image.open(dataset[0]['img_path'])
        assert image.size == (96, 96)


def test_label_maps_as_mmsegmentation_reads_them(world):
    cfg = Config.fromfile(CONFIGS / 'upernet_vit-toy.py')
    init_default_scope('mmseg')
    cfg.val_dataloader.dataset.data_root = str(world)
    dataset = SEG_DATASETS.build(cfg.val_dataloader.dataset)
    assert dataset.metainfo['classes'] == scenes.SEG_CLASSES
    assert [tuple(c) for c in dataset.metainfo['palette']] == list(scenes.SEG_PALETTE)
    assert len(dataset) == 20
    seen = set()
    for i in range(20):
        labels = dataset[i]['data_samples'].gt_sem_seg.data
        seen |= set(labels.unique().tolist())
    assert seen <= {*range(16), 255}
    assert len(seen & set(range(10))) == 10


def drawn(seed: int = 0, number: int = 60):
    """Scenes with their image and label map."""
    return [scenes.draw(seed, 'train', index, 96) for index in range(number)]


def test_label_maps_hold_what_the_scene_says():
    for scene, _, labels in drawn():
        names = [item['shape'] for item in scene['objects']] + [scene['ground']]
        expected = {1 + scenes.SEG_CLASSES.index(name) for name in names}
        assert set(np.unique(labels).tolist()) == expected | {scenes.IGNORED}
        assert (labels == scenes.IGNORED).mean() < 0.2


@pytest.mark.parametrize(
    'shape, area',
    [
        ('circle', np.pi * 0.9**2),
        ('ring', np.pi * (0.94**2 - 0.46**2)),
        ('square', 1.52**2),
        ('cross', 2 * 1.9 * 0.6 - 0.6**2),
        ('triangle', 3 * 3**0.5 * 0.52**2),
        # Ten triangles between the centre, a tip and a notch.
        ('star', 5 * 0.45 * np.sin(np.pi / 5)),
    ],
)
def test_shapes_have_their_area(shape, area):
    side = np.linspace(-1.2, 1.2, 481)
    x, y = np.meshgrid(side, side)
    inside = scenes.OUTLINES[shape](x, y) < 0
    assert inside.mean() * 2.4**2 == pytest.approx(area, rel=0.02)


def test_colours_are_those_of_the_captions():
    palette = np.array(list(scenes.COLOURS.values()), float)
    checked = 0
    for scene, image, labels in drawn(number=120):
        main = scene['objects'][0]
        if main['texture'] != 'plain':
            continue
        inside = labels == 1 + scenes.SEG_CLASSES.index(main['shape'])
        colour = np.median(image[inside], axis=0)
        nearest = np.abs(palette - colour).sum(1).argmin()
        assert list(scenes.COLOURS)[nearest] == main['colour']
        assert (
            f'a large {main["colour"]} plain {main["shape"]}'
            in (scenes.describe(scene)[0])
        )
        checked += 1
    assert checked > 10


def test_captions_tell_where_things_are():
    checked = 0
    for scene, _, labels in drawn():
        main, *rest = scene['objects']
        names = [item['shape'] for item in scene['objects']]
        assert rest, 'every scene has a small shape'
        captions = scenes.describe(scene)
        assert captions[-1] == f'a picture of a large {main["shape"]}'
        full = captions[0]
        assert full.endswith(f' on {scene["ground"]}')
        for item in scene['objects'][:3]:  # as many as a sentence takes
            assert f'{item["colour"]} {item["texture"]} {item["shape"]}' in full
        first = rest[0]
        if names.count(first['shape']) > 1:
            continue
        # Where the label map has them: rows grow downwards.
        (y0, x0), (y1, x1) = (
            np.argwhere(labels == 1 + scenes.SEG_CLASSES.index(item['shape'])).mean(0)
            for item in (main, first)
        )
        # Too near a diagonal to tell; a moon's mass is beside its centre.
        if abs(abs(x0 - x1) - abs(y0 - y1)) < 12:
            continue
        if abs(x0 - x1) > abs(y0 - y1):
            words, back = ('left of', 'right of')[:: 1 if x0 < x1 else -1]
        else:
            words, back = ('above', 'below')[:: 1 if y0 < y1 else -1]
        small = f'a small {first["colour"]} {first["texture"]} {first["shape"]}'
        assert f'{words} {small}' in full
        assert captions[2].startswith(f'{small} {back} a large')
        checked += 1
    assert checked > 30


def test_captions_fit_the_text_tower(world):
    length = clip.MODEL['text_cfg']['context_length']
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    lines = map(json.loads, (world / 'captions.jsonl').read_text().splitlines())
    longest = 0
    for line in lines:
        longest = max(longest, int((tokenizer(line['captions']) != 0).sum(1).max()))
    # Four shapes, none with a shorter description than this world's longest.
    assert 25 < longest <= length


@pytest.mark.slow
def test_clip_learns(teacher):
    _, _, losses = teacher
    # Each batch reads one kind of caption, and some kinds tell less than others.
    assert np.mean(losses[-20:]) < 0.85 * np.mean(losses[:20])
    assert np.mean(losses[-20:]) < np.log(20) - 0.2  # better than guessing


@torch.no_grad()
@pytest.mark.slow
def test_zero_shot_counts_the_nearest_class_texts(world, teacher):
    _, model, _ = teacher
    tokenizer = open_clip.SimpleTokenizer(context_length=40)
    images, lines = clip.load_split(world, 'val', 64)
    names, templates = list(scenes.SHAPES), ['a picture of a large {}', 'a {}']
    texts = []
    for name in names:
        parts = [model.encode_text(tokenizer(t.format(name))) for t in templates]
        texts.append(sum(part[0] / part.norm() for part in parts))
    right = 0
    for image, line in zip(images, lines, strict=True):
        feature = model.encode_image(small_clip.normalise(image[None]))
        nearest = [torch.cosine_similarity(feature[0], t, dim=0) for t in texts]
        right += names[int(np.argmax(nearest))] == line['class_name']
    labels = torch.tensor([names.index(line['class_name']) for line in lines])
    found = small_clip.zero_shot(model, tokenizer, images, labels, names, templates)
    assert found == pytest.approx(100 * right / len(lines))


@pytest.mark.slow
def test_saved_clip_is_a_teacher_and_open_clip_loads_it(world, teacher):
    folder, model, _ = teacher
    images, _ = clip.load_split(world, 'val', 64)
    views = small_clip.normalise(images[:4])
    generator = OpenCLIPGenerator(
        'toy',
        pretrained=str(folder / 'toy.safetensors'),
        model_config=str(folder / 'toy.json'),
    )
    with torch.no_grad():
        assert generator(views).shape == (4, 64, 16)
        features = model.encode_image(views)
    again = open_clip.CLIP(**json.loads((folder / 'toy.json').read_text())).eval()
    again.load_state_dict(load_file(folder / 'toy.safetensors'))
    torch.testing.assert_close(again.encode_image(views), features)
    assert generator.mean == pytest.approx([255 * value for value in small_clip.MEAN])


def test_clip_without_data_says_how_to_draw_it(tmp_path):
    with pytest.raises(FileNotFoundError, match='draw_scenes.py'):
        clip.train(tmp_path, 1)


def test_segmentation_and_finetuning_heads_fit_the_world():
    finetune = Config.fromfile(CONFIGS / 'finetune_vit-toy.py')
    assert finetune.model.head.num_classes == len(scenes.SHAPES)
    assert finetune.model.data_preprocessor.num_classes == len(scenes.SHAPES)
    segment = Config.fromfile(CONFIGS / 'upernet_vit-toy.py')
    for head in ('decode_head', 'auxiliary_head'):
        assert segment.model[head].num_classes == len(scenes.SEG_CLASSES)
    arch = Config.fromfile(CONFIGS / 'dtm_vit-toy.py').model.backbone.arch
    assert finetune.model.backbone.arch == segment.model.backbone.arch == arch


def test_a_failing_stage_shows_its_log_and_stops_the_others(tmp_path):
    code = 'import sys; print("line of the log"); sys.exit(3)'
    mark = tmp_path / 'mark'
    slow = f'import time, pathlib; time.sleep(60); pathlib.Path({str(mark)!r}).touch()'
    jobs = [
        plan.make_job('slow', 'slow', [sys.executable, '-S', '-c', slow], 1),
        plan.make_job('bad', 'bad one', [sys.executable, '-S', '-c', code], 1),
    ]
    pool = ProcessPool(jobs, tmp_path, [{}, {}])
    with pytest.raises(ChildProcessError) as error:
        quickstart.run(pool, False, Console(file=io.StringIO()))
    message = str(error.value)
    assert 'line of the log' in message
    assert 'bad one ended with exit code 3' in message
    assert str(tmp_path / 'logs/bad.log') in message
    assert not mark.exists()


def test_stages_leave_gpus_alone_and_share_the_cores_out(tmp_path, monkeypatch):
    """Two processes of a small model would ask for two GPUs."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    monkeypatch.setattr(plan.os, 'sched_getaffinity', lambda _: set(range(6)))
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    (tmp_path / 'launch.sh').write_text('#!/bin/sh\nenv > launch.txt\n')
    (tmp_path / 'launch.sh').chmod(0o755)
    jobs = [
        plan.make_job('alone', '', ['sh', '-c', 'env > alone.txt'], 1, alone=True),
        plan.make_job('launch', '', [tmp_path / 'launch.sh'], 1, alone=True),
        plan.make_job('beside', '', ['sh', '-c', 'env > beside.txt'], 1),
    ]
    pool = ProcessPool(jobs, tmp_path, [plan.threads(2)] * 2, tmp_path)
    quickstart.run(pool, False, Console(file=io.StringIO()))
    found = {}
    for job in jobs:
        lines = (tmp_path / f'{job.name}.txt').read_text().splitlines()
        variables = dict(line.split('=', 1) for line in lines if '=' in line)
        assert variables['CUDA_VISIBLE_DEVICES'] == ''
        found[job.name] = variables.get('OMP_NUM_THREADS')
    # A script that launches processes shares the cores out by itself.
    assert found == dict(alone='6', launch=None, beside='3')


def test_quickstart_plans_every_start_alike(tmp_path):
    args = quickstart.parse_args(
        ['--full', '--work-dir', str(tmp_path), '--seeds', '2']
    )
    plans = [quickstart.Plan(args, seed) for seed in (0, 1)]
    todo = [quickstart.data_stage(args)] + [s for p in plans for s in p.stages()]
    todo += quickstart.closing_stages(plans[0])
    ProcessPool(todo, tmp_path)  # needs fit
    by_name = {job.name: list(map(str, job.command)) for job in todo}
    # DTM's and the baseline's commands differ in the config and the folder alone.
    dtm = [part.replace('dtm', 'token-wise') for part in by_name['seed1-dtm']]
    assert dtm == by_name['seed1-token-wise']
    assert 'randomness.seed=1' in dtm
    for task in ('finetune', 'segment'):
        ours = by_name[f'seed0-dtm-{task}']
        other = by_name[f'seed0-random-{task}']
        differ = {part.split('=')[0] for part in set(ours) ^ set(other)}
        assert differ <= {
            'model.backbone.init_cfg',
            'model.backbone.init_cfg.checkpoint',
            str(args.work_dir / f'seed0/dtm_{task}'),
            str(args.work_dir / f'seed0/random_{task}'),
        }


def test_the_short_tour_is_a_part_of_the_full_one(tmp_path):
    """Its schedules end with its trainings, and its first result comes early."""
    names = {}
    for option in ([], ['--full']):
        args = quickstart.parse_args(['--work-dir', str(tmp_path), *option])
        seed = quickstart.Plan(args, 0)
        jobs = [quickstart.data_stage(args), *seed.stages()]
        jobs += quickstart.closing_stages(seed)
        ProcessPool(jobs, tmp_path)  # needs fit
        names[args.full] = [job.name for job in jobs]
        if args.full:
            continue
        commands = {job.name: list(map(str, job.command)) for job in jobs}
        assert '--num-train' in commands['data']
        clip_command = commands['seed0-clip']
        assert clip_command[clip_command.index('--batch-size') + 1] == '16'
        for name in ('seed0-dtm', 'seed0-token-wise', 'seed0-dtm-finetune'):
            given = dict(part.split('=', 1) for part in commands[name] if '=' in part)
            file = next(part for part in commands[name] if part.endswith('toy.py'))
            processes = 1 if 'finetune' in name else 2
            assert int(given['train_dataloader.batch_size']) * processes == 16
            cfg = Config.fromfile(file)
            cfg.merge_from_dict(
                {
                    key: float(value)
                    for key, value in given.items()
                    if key.startswith(('train_cfg', 'param_scheduler'))
                }
            )
            warm_up, cosine = cfg.param_scheduler
            assert cosine.end == cfg.train_cfg.max_epochs
            assert cosine.begin == warm_up.end
            assert cosine.get('T_max', cosine.end - cosine.begin) == (
                cosine.end - cosine.begin
            )
    assert set(names[False]) < set(names[True])
    first = names[False].index('seed0-token-wise')
    assert {'seed0-dtm-probe', 'seed0-groups'} <= set(names[False][:first])
    assert 'seed0-random-finetune' in names[False]


def test_table_of_several_seeds(tmp_path):
    values = np.array([[50.0, 60.0], [51.0, 63.0], [55.0, 62.0]])
    tables = [
        dict(
            seed=seed,
            clip_zero_shot_top1=80.0,
            starts={
                'random': dict.fromkeys(quickstart.START_FIGURES, 0.0),
                'token-wise': dict.fromkeys(quickstart.START_FIGURES, row[0]),
                'dtm': dict.fromkeys(quickstart.START_FIGURES, row[1]),
            },
            patches={
                'without': dict.fromkeys(quickstart.PATCH_FIGURES, row[0]),
                'with': dict.fromkeys(quickstart.PATCH_FIGURES, row[1]),
                'image': dict(zero_shot=row[0]),
            },
        )
        for seed, row in enumerate(values)
    ]
    args = quickstart.parse_args(
        ['--full', '--work-dir', str(tmp_path), '--seeds', '3']
    )
    quickstart.write_results(args, tables)
    text = (tmp_path / 'results.md').read_text()
    assert '| DTM | 61.7 ± 1.5 |' in text
    assert '| patches, morphed | 61.7 ± 1.5 |' in text
    assert "| CLIP's image feature | 52.0 ± 2.6 | – | – |" in text
    assert json.loads((tmp_path / 'results.json').read_text())['figures'] == tables


def test_command_lines_answer(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'examples/toy/draw_scenes.py', '--out', tmp_path / 'w',
         '--num-train', '3'],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'at least one per class' in done.stderr
    assert 'Traceback' not in done.stderr

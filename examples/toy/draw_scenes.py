"""Draw the toy dataset: scenes of textured shapes, captioned and labelled.

Nobody can download ImageNet, ADE20K and CLIP's weights in a minute. This dataset
is drawn in seconds and has what the whole path needs: images in class folders
(as ImageNet), captions (to train a CLIP) and label maps (as ADE20K)::

    OUT/train/<class>/000012.jpg       OUT/images/training/000012.jpg
    OUT/val/<class>/000003.jpg         OUT/annotations/training/000012.png
    OUT/captions.jsonl                 OUT/images/validation/...
    OUT/meta.json                      OUT/annotations/validation/...

A scene has one large shape, which is its class, and one to three small ones, on
one of six grounds. Label maps follow ADE20K: 0 is ignored (edges, where two
things share a pixel), 1..10 are the shapes, 11..16 the grounds; datasets read
them with ``reduce_zero_label=True``.

The same settings give the same bytes. A folder is complete once ``meta.json``
is there: drawing happens beside it and is moved into place at the end.

    python examples/toy/draw_scenes.py --out data/toy
"""

import io
import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from mmdtm.cli.scripts import script_parser
from mmdtm.io import atomic_write

# What CLIP is asked of a scene's class.
TEMPLATE = 'a picture of a large {}'
VERSION = 1  # of the drawing; a folder drawn by another version is redrawn

# Each with its two tones, and the colour that it would hide.
GROUNDS = dict(
    brick=((196, 132, 112), (216, 190, 176), 'red'),
    grass=((128, 180, 96), (100, 154, 78), 'green'),
    sand=((228, 204, 156), (206, 178, 130), 'yellow'),
    snow=((240, 243, 247), (204, 216, 230), 'white'),
    water=((112, 180, 220), (152, 206, 232), 'blue'),
    wood=((190, 148, 104), (162, 120, 82), 'orange'),
)
TEXTURES = ('plain', 'striped', 'dotted', 'checked', 'speckled')
COLOURS = {
    'blue': (58, 106, 220),
    'cyan': (84, 212, 218),
    'green': (52, 172, 76),
    'orange': (240, 134, 24),
    'pink': (244, 130, 180),
    'purple': (150, 80, 196),
    'red': (222, 56, 56),
    'white': (238, 238, 234),
    'yellow': (246, 214, 40),
}
IGNORED = 0  # in the label maps
RIM_TONE = (40, 36, 44)
EDGE = 0.75  # pixels on either side of an outline that are ignored
SPLITS = {'train': ('training', 0), 'val': ('validation', 1)}


# ---------------------------------------------------------------- shapes ----
# Each function takes coordinates (x right, y up) in units of the shape's radius
# and returns about the signed distance to its outline, negative inside.


def _half_planes(x, y, angles, offset):
    return np.maximum.reduce([x * np.cos(a) + y * np.sin(a) - offset for a in angles])


def _box(x, y, half_width, half_height):
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _arrow(x, y):
    head = _half_planes(0.25 - x, y, (0, 2 * np.pi / 3, -2 * np.pi / 3), 0.4)
    return np.minimum(head, _box(x + 0.4, y, 0.55, 0.22))


def _circle(x, y):
    return np.hypot(x, y) - 0.9


def _cross(x, y):
    return np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _flower(x, y):
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    petals = radius - (0.68 + 0.3 * np.cos(6 * angle))
    return np.maximum(0.6 * petals, 0.16 - radius)


def _heart(x, y):
    side, x = 0.62, np.abs(x)
    across, along = (x + y + 0.55) / 2**0.5, (y - x + 0.55) / 2**0.5
    body = _box(across - side / 1.2, along - side / 1.2, side / 1.2, side / 1.2)
    lobe = np.hypot(across - side / 0.6, along - side / 1.2) - side / 1.2
    return np.minimum(body, lobe)


def _moon(x, y):
    return np.maximum(np.hypot(x, y) - 0.95, 0.78 - np.hypot(x - 0.5, y - 0.12))


def _ring(x, y):
    return np.abs(np.hypot(x, y) - 0.7) - 0.24


def _square(x, y):
    return _box(x, y, 0.76, 0.76)


def _star(x, y):
    fold = 2 * np.pi / 5
    angle = np.mod(np.arctan2(x, y) + fold / 2, fold) - fold / 2
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.abs(np.sin(angle))
    # The line from the tip (1, 0) to the notch between two tips.
    notch = 0.45 * np.array([np.cos(fold / 2), np.sin(fold / 2)])
    edge = notch - np.array([1.0, 0.0])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return (along - 1) * normal[0] + across * normal[1]


def _triangle(x, y):
    return _half_planes(x, y + 0.15, np.pi * np.array([-3, 1, 5]) / 6, 0.52)


# Alphabetical, as datasets number class folders.
OUTLINES = dict(
    arrow=_arrow, circle=_circle, cross=_cross, flower=_flower, heart=_heart,
    moon=_moon, ring=_ring, square=_square, star=_star, triangle=_triangle,
)  # fmt: skip
SHAPES = tuple(OUTLINES)
SEG_CLASSES = SHAPES + tuple(GROUNDS)
# Shapes in Paul Tol's muted scheme and black, told apart by colour-blind
# readers; grounds in pale tints.
SEG_PALETTE = (
    (51, 34, 136), (136, 204, 238), (68, 170, 153), (17, 119, 51), (204, 102, 119),
    (221, 204, 119), (170, 68, 153), (136, 34, 85), (153, 153, 51), (30, 30, 30),
    (236, 214, 206), (214, 232, 206), (244, 236, 214), (224, 226, 236),
    (206, 222, 238), (226, 214, 198),
)  # fmt: skip

# -------------------------------------------------------------- textures ----


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """A fixed field of white noise, from which all textures cut windows."""
    return np.random.default_rng(20240100).standard_normal((512, 512)).astype('f4')


def _window(rng, height: int, width: int) -> np.ndarray:
    top, left = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
    return _noise()[top : top + height, left : left + width]


def _smooth_noise(rng, size: int, step_y: float, step_x: float) -> np.ndarray:
    """Noise with features of about ``step_y`` by ``step_x`` pixels."""
    rows, cols = np.arange(size) / step_y, np.arange(size) / step_x
    coarse = _window(rng, int(rows[-1]) + 2, int(cols[-1]) + 2)
    y, x = rows.astype(int), cols.astype(int)
    fy, fx = (rows - y)[:, None].astype('f4'), (cols - x)[None].astype('f4')
    upper = coarse[y][:, x] * (1 - fx) + coarse[y][:, x + 1] * fx
    lower = coarse[y + 1][:, x] * (1 - fx) + coarse[y + 1][:, x + 1] * fx
    return upper * (1 - fy) + lower * fy


def _texture(rng, name: str, x, y) -> np.ndarray:
    """Share of the second tone, in 0..1, at pixel coordinates ``x``, ``y``."""
    pitch = rng.uniform(5.5, 8.5)
    angle = rng.uniform(0, np.pi)
    u = (x * np.cos(angle) + y * np.sin(angle)) / pitch
    v = (y * np.cos(angle) - x * np.sin(angle)) / pitch
    if name == 'plain':
        return np.zeros_like(x)
    if name == 'striped':
        return np.clip(0.5 + 2.5 * np.sin(2 * np.pi * u), 0, 1)
    if name == 'dotted':
        distance = np.hypot(u - np.round(u), v - np.round(v))
        return np.clip((0.33 - distance) * pitch + 0.5, 0, 1)
    if name == 'checked':
        return np.clip(0.5 + 4 * np.sin(np.pi * u) * np.sin(np.pi * v), 0, 1)
    size = x.shape[0]
    return (_smooth_noise(rng, size, 1.6, 1.6) > 0.45).astype('f4')


def _ground(rng, name: str, size: int) -> np.ndarray:
    """The ground as float32 RGB, (size, size, 3), 0 to 255."""
    y, x = np.mgrid[0:size, 0:size].astype('f4')
    if name == 'brick':
        width, height = rng.uniform(15, 20), rng.uniform(7, 9)
        along, across = y + rng.uniform(0, height), x + rng.uniform(0, width)
        row = np.floor(along / height)
        across = across + width / 2 * np.mod(row, 2)
        joint = (np.mod(across, width) < 1.3) | (np.mod(along, height) < 1.3)
        # Every brick has a tone of its own.
        share = 0.1 + 0.14 * np.sin(37 * row + 11 * np.floor(across / width))
        share[joint] = 1
    elif name == 'grass':
        share = 0.5 + 0.55 * _smooth_noise(rng, size, 6, 1.2)
    elif name == 'sand':
        share = 0.45 + 0.3 * _smooth_noise(rng, size, 1.0, 1.0)
        share = share + 0.25 * _smooth_noise(rng, size, 12, 20)
    elif name == 'snow':
        share = 0.35 + 0.35 * _smooth_noise(rng, size, 10, 24)
    elif name == 'water':
        wave = 2.5 * np.sin(x / rng.uniform(7, 10) + rng.uniform(0, 6))
        wave = wave + 3 * _smooth_noise(rng, size, 16, 16)
        share = np.clip(1.6 * np.sin((y + wave) / rng.uniform(1.5, 2.1)) - 0.6, 0, 1)
    else:
        grain = _smooth_noise(rng, size, 2.2, 40)
        grain = grain + 0.6 * _smooth_noise(rng, size, 7, 60)
        share = 0.5 + 0.4 * grain
    first, second = (np.array(tone, 'f4') for tone in GROUNDS[name][:2])
    return first + np.clip(share, 0, 1)[..., None] * (second - first)


# ---------------------------------------------------------------- scenes ----


def compose(rng, shape: str) -> dict:
    """Decide what a scene with this large shape shows.

    Returns:
        ``ground`` and ``objects``, the large one first; each object has a
        shape, colour, texture, centre (x right, y down), radius and rotation
        in degrees. Lengths are in units of the image's side.
    """
    ground = str(rng.choice(tuple(GROUNDS)))
    radius = rng.uniform(0.28, 0.36)
    centre = rng.uniform(radius, 1 - radius, 2)
    objects = [dict(shape=shape, centre=centre, radius=radius)]
    others = [name for name in SHAPES if name != shape]
    wanted = 1 + int(rng.integers(1, 4))
    for _ in range(60):
        if len(objects) == wanted:
            break
        radius = rng.uniform(0.1, 0.14)
        centre = rng.uniform(radius, 1 - radius, 2)
        offsets = [(centre - o['centre'], radius + o['radius']) for o in objects]
        if all(np.hypot(*offset) > reach + 0.02 for offset, reach in offsets):
            small = str(rng.choice(others))
            objects.append(dict(shape=small, centre=centre, radius=radius))
    if len(objects) == 1:  # the corner far from the large shape always has room
        corner = np.where(objects[0]['centre'] < 0.5, 0.9, 0.1)
        objects.append(dict(shape=str(rng.choice(others)), centre=corner, radius=0.1))
    # No two things of one scene share a colour, and none has its ground's.
    colours = rng.permutation([name for name in COLOURS if name != GROUNDS[ground][2]])
    for item, colour in zip(objects, colours, strict=False):
        item.update(
            colour=str(colour),
            texture=str(rng.choice(TEXTURES)),
            rotation=round(float(rng.uniform(-15, 15)), 1),
            radius=round(float(item['radius']), 4),
            centre=[round(float(value), 4) for value in item['centre']],
        )
    return dict(ground=ground, objects=objects)


def relation(first: dict, second: dict) -> str:
    """Where ``first`` lies as seen from ``second``."""
    dx = first['centre'][0] - second['centre'][0]
    dy = first['centre'][1] - second['centre'][1]
    if abs(dx) > abs(dy):
        return 'left of' if dx < 0 else 'right of'
    return 'above' if dy < 0 else 'below'


def describe(scene: dict) -> list[str]:
    """Captions of a scene, the fullest first; all of them true."""
    main, *rest = scene['objects'][:3]  # two small ones make a long enough sentence
    short = [f'a large {main["shape"]}']
    short += [f'a small {item["shape"]}' for item in rest]
    full = [
        name.replace(item['shape'], '{colour} {texture} {shape}'.format(**item))
        for name, item in zip(short, [main, *rest], strict=True)
    ]
    ground = f'on {scene["ground"]}'

    def places(names):
        return ' and '.join(
            f'{relation(main, item)} {name}'
            for item, name in zip(rest, names[1:], strict=True)
        )

    return [
        f'{full[0]} {places(full)} {ground}',
        f'{short[0]} {places(short)}',
        f'{full[1]} {relation(rest[0], main)} {full[0]} {ground}',
        f'{full[0]} {ground}',
        f'a picture of {short[0]}',
    ]


def render(rng, scene: dict, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene of :func:`compose`.

    Returns:
        The image, uint8 (size, size, 3), and the label map, uint8 (size, size).
    """
    y, x = (np.mgrid[0:size, 0:size] + 0.5).astype('f4')
    picture = _ground(rng, scene['ground'], size)
    labels = np.full((size, size), 1 + SEG_CLASSES.index(scene['ground']), np.uint8)
    for item in scene['objects']:
        outline, radius = OUTLINES[item['shape']], item['radius'] * size
        cx, cy = (value * size for value in item['centre'])

        def distance(dx, dy, item=item, outline=outline, radius=radius):
            angle = np.deg2rad(item['rotation'])
            right, up = dx / radius, -dy / radius
            cos, sin = np.cos(angle), np.sin(angle)
            return radius * outline(right * cos + up * sin, up * cos - right * sin)

        # Beyond this box nothing of the shape or its shadow is seen.
        reach = 1.1 * radius + 6
        box = (
            slice(max(int(cy - reach), 0), int(cy + reach) + 1),
            slice(max(int(cx - reach), 0), int(cx + reach) + 1),
        )
        dx, dy = x[box] - cx, y[box] - cy
        shadow = np.clip(0.5 - distance(dx - 1.5, dy - 2.0) / 4, 0, 1)
        region = picture[box] * (1 - 0.3 * shadow[..., None])
        inside = distance(dx, dy)
        cover = np.clip(0.5 - inside, 0, 1)[..., None]
        base = np.array(COLOURS[item['colour']], 'f4') + rng.normal(0, 7, 3)
        # The second tone is lighter for dark colours and darker for light ones.
        second = base * 0.68 if base.mean() > 120 else base + 0.35 * (255 - base)
        tone = _texture(rng, item['texture'], x, y)[box][..., None]
        fill = base + tone * (second - base)
        # A dark rim, so that a shape shows on any ground.
        rim = np.clip(1.1 + 0.05 * radius + inside, 0, 1)[..., None]
        fill = fill + rim * (np.array(RIM_TONE, 'f4') - fill)
        picture[box] = region + cover * (fill - region)
        part = labels[box]
        part[inside < 0] = 1 + SEG_CLASSES.index(item['shape'])
        part[np.abs(inside) < EDGE] = IGNORED
    slope = (x - size / 2) * rng.normal() + (y - size / 2) * rng.normal()
    light = 1 + 0.12 * slope / size
    picture = picture * light[..., None] + 5 * _window(rng, size, size)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8), labels


def draw(seed: int, split: str, index: int, size: int):
    """Scene ``index`` of a split, a pure function of its arguments.

    Returns:
        What the scene shows (see :func:`compose`), the image and the label map
        (see :func:`render`). Classes take turns, so that they are balanced.
    """
    rng = np.random.default_rng([seed, SPLITS[split][1], index])
    scene = compose(rng, SHAPES[index % len(SHAPES)])
    return scene, *render(rng, scene, size)


def _draw_files(out: Path, seed: int, size: int, split: str, indices: range):
    """Write some scenes of a split; returns their lines of captions.jsonl."""
    lines, long_name = [], SPLITS[split][0]
    for index in indices:
        scene, image, labels = draw(seed, split, index, size)
        name = scene['objects'][0]['shape']
        paths = (
            f'{split}/{name}/{index:06d}.jpg',
            f'images/{long_name}/{index:06d}.jpg',
            f'annotations/{long_name}/{index:06d}.png',
        )
        for path in paths:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, 'JPEG', quality=92)
        for path in paths[:2]:
            (out / path).write_bytes(encoded.getvalue())
        Image.fromarray(labels).save(out / paths[2])
        line = dict(image=paths[0], split=split, class_name=name)
        lines.append(json.dumps(line | dict(captions=describe(scene), **scene)))
    return lines


def _is_drawn(out: Path, settings: dict) -> bool:
    """Whether a folder holds the dataset with these settings."""
    marker = out / 'meta.json'
    if marker.exists():
        return json.loads(marker.read_text())['settings'] == settings
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(
            f'{out} exists and was not drawn by this tool (it has no meta.json). Name '
            'another folder with --out, or move it away.'
        )
    return False


def draw_world(
    out: Path,
    num_train: int = 4000,
    num_val: int = 1000,
    size: int = 96,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
) -> bool:
    """Draw all files of the toy dataset into ``out``, unless they are there.

    The same seed gives the same bytes. Without ``workers`` there is a process for
    each core, 8 at most.

    Returns:
        Whether anything was drawn.

    Raises:
        ValueError: If a number is out of range.
        FileExistsError: If ``out`` exists and was not drawn by this tool.
    """
    if min(num_train, num_val) < len(SHAPES):
        raise ValueError(
            f'{num_train} training and {num_val} validation scenes were asked for. '
            f'Each split needs at least one per class, {len(SHAPES)}.'
        )
    if not 32 <= size <= 256:
        raise ValueError(f'size is {size} pixels. Choose 32 to 256.')
    out, numbers = Path(out), dict(num_train=num_train, num_val=num_val)
    settings = dict(version=VERSION, **numbers, size=size, seed=seed)
    if _is_drawn(out, settings) and not force:
        return False
    parts = [
        (split, range(start, min(start + 250, number)))
        for split, number in (('train', num_train), ('val', num_val))
        for start in range(0, number, 250)
    ]
    workers = workers or min(os.cpu_count() or 1, 8)
    with atomic_write(out) as part:
        draw_part = partial(_draw_files, part, seed, size)
        if workers == 1:
            drawn = [draw_part(*place) for place in parts]
        else:
            with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
                drawn = list(pool.map(draw_part, *zip(*parts, strict=True)))
        lines = '\n'.join(line for lines in drawn for line in lines) + '\n'
        (part / 'captions.jsonl').write_text(lines)
        segmentation = dict(
            classes=SEG_CLASSES,
            palette=SEG_PALETTE,
            ignored_label=IGNORED,
            note='Label i > 0 is classes[i - 1]; label 0 (edges) is ignored, as '
            'with reduce_zero_label=True.',
        )
        meta = dict(settings=settings, classes=SHAPES, templates=[TEMPLATE])
        meta['segmentation'] = segmentation
        (part / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
        if out.exists():
            shutil.rmtree(out)
    return True


def main() -> None:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('data/toy'), help='folder')
    add('--num-train', type=int, default=4000, help='training scenes')
    add('--num-val', type=int, default=1000, help='validation scenes')
    add('--size', type=int, default=96, help='side in pixels')
    add('--seed', type=int, default=0, help='same seed, same bytes')
    add('--workers', type=int, help='processes (default: all cores)')
    add('--force', action='store_true', help='draw again')
    args = parser.parse_args()
    start = time.time()
    try:
        drawn = draw_world(**vars(args))
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    if drawn:
        print(
            f'{args.num_train} + {args.num_val} scenes of {args.size} pixels in '
            f'{args.out}, {time.time() - start:.1f} s'
        )
    else:
        print(f'{args.out} is complete already; --force draws it again')


if __name__ == '__main__':
    main()

"""Files that hang, flood, mislead or try to run code."""

import itertools
import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from faults import finish
from kills import unbroken
from mmengine.config import Config
from PIL import Image
from runs import RECIPES, Start, losses

from mmdtm.datasets import OfficialCIFAR10
from mmdtm.process_pool import Job, ProcessPool

MEGABYTES = 1500  # a run of these takes a third of it


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def png_bomb(path: Path, side: int) -> None:
    """Some kilobytes that declare side x side black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum

    header = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = bytes(side + 1)
    data = b''.join(packer.compress(rows) for _ in range(side)) + packer.flush()
    parts = chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + parts)


def truncated(path: Path) -> None:
    Image.new('RGB', (64, 64), 'red').save(path, 'JPEG')
    path.write_bytes(path.read_bytes()[:300])


def self_link(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


def cmyk(path: Path) -> None:
    Image.new('CMYK', (70, 70)).save(path, 'JPEG')


def deep(path: Path) -> None:
    Image.fromarray(np.full((70, 70), 40000, np.uint16)).save(path, 'PNG')


def narrow(path: Path) -> None:
    Image.new('RGB', (1, 20000)).save(path, 'PNG')


# How each is made, and what the log says of it; '' for those that can be used.
IMAGES = {
    'a pipe': (os.mkfifo, 'left out'),
    'a link to /dev/zero': (lambda path: path.symlink_to('/dev/zero'), 'left out'),
    'a link to itself': (lambda path: path.symlink_to(path), 'left out'),
    'a broken link': (lambda path: path.symlink_to('/nowhere'), 'left out'),
    'a folder that links into itself': (self_link, 'left out'),
    'a bomb of 9,000 x 9,000 pixels': (partial(png_bomb, side=9000), 'Skipped'),
    'a bomb of 30,000 x 30,000 pixels': (partial(png_bomb, side=30000), 'Skipped'),
    'half a JPEG': (truncated, 'Skipped'),
    'a text': (lambda path: path.write_text('no image'), 'Skipped'),
    'an empty file': (Path.touch, 'Skipped'),
    'CMYK': (cmyk, ''),
    '16 bits': (deep, ''),
    '1 x 20,000 pixels': (narrow, ''),
}


def image(name: str, folder: Path) -> None:
    """Training goes on, and says what it has left out."""
    make, words = IMAGES[name]
    place = clear(folder / 'inputs' / re.sub(r'\W+', '_', name))
    shutil.copytree(folder / 'made_data/classes', place / 'data')
    odd = place / 'data/train/0001' / ('0' if 'folder' in name else '0.png')
    odd.unlink(missing_ok=True)
    make(odd)
    options = [f'train_dataloader.dataset.data_root={place / "data"}']
    config, *_ = unbroken(RECIPES[0], folder)
    start = Start(config, place / 'run', '--cfg-options', *options)
    finish(start)
    output = start.output
    assert words in output and (not words or odd.name in output), output[-3000:]
    assert len(losses(place / 'run')) >= 8
    assert start.megabytes < MEGABYTES, f'{start.megabytes:.0f} MB'
    shutil.rmtree(place)


def clear(place: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def zip_bomb(path: Path) -> None:
    """3 GB of zeros."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'state_dict': {}}, 2))
        with archive.open('archive/data/0', 'w', force_zip64=True) as member:
            for _ in range(3000):
                member.write(bytes(1_000_000))


def save(make: Callable[[], object]) -> Callable[[Path], None]:
    return lambda path: torch.save(make(), path)


def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(100_000))


def half_checkpoint(path: Path) -> None:
    torch.save(dict(state_dict=dict(w=torch.randn(10_000))), path)
    path.write_bytes(path.read_bytes()[:20_000])


def hostile(path: Path, legacy: bool = False) -> None:
    content = dict(state_dict=dict(w=torch.ones(1)), meta=Payload(path.parent / 'mark'))
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


NAN = torch.full((3,), torch.nan)
HUGE = torch.zeros(1).expand(2**20, 2**20)
CHECKPOINTS = {
    'a zip bomb': zip_bomb,
    'a list': save(lambda: [torch.ones(1)]),
    'None under state_dict': save(lambda: dict(state_dict=None, meta={})),
    'a list under state_dict': save(lambda: dict(state_dict=[torch.ones(1)])),
    'NaN': save(lambda: dict(state_dict={'backbone.cls_token': NAN, 'meta': {}})),
    'a tensor of 4 TB': save(lambda: dict(state_dict={'backbone.cls_token': HUGE})),
    'half a checkpoint': half_checkpoint,
    'random bytes': random_bytes,
    'an empty file': Path.touch,
    'a pickle that runs code': hostile,
    'an old pickle that runs code': partial(hostile, legacy=True),
}
PRETRAIN, FINETUNE = RECIPES[0], next(r for r in RECIPES if r.name == 'fine-tuning')
WAYS = {
    'load_from': (PRETRAIN, 'train.py', ['--cfg-options', 'load_from={}']),
    'resume': (PRETRAIN, 'train.py', ['--resume', '{}']),
    'init_cfg': (FINETUNE, 'train.py', []),
    'teacher': (
        PRETRAIN,
        'train.py',
        [
            '--cfg-options',
            'model.target_generator.random_weights=False',
            'model.target_generator.pretrained={}',
        ],
    ),
    'test': (FINETUNE, 'test.py', ['{}']),
    'features': (FINETUNE, 'evaluate_features.py', ['{}']),
}


def checkpoint(name: str, way: str, folder: Path) -> None:
    """Refused, with its name and a reason, in little memory."""
    recipe, tool, args = WAYS[way]
    place = clear(folder / 'inputs' / re.sub(r'\W+', '_', f'{name} {way}'))
    path = place / 'odd.pth'
    CHECKPOINTS[name](path)
    args = [arg.format(path) for arg in args]
    config, *_ = unbroken(recipe, folder)
    if way == 'init_cfg':
        cfg = Config.fromfile(config)
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
        config = place / 'config.py'
        cfg.dump(config)
    start = Start(config, place / 'run', *args, tool=tool)
    codes, output = start.wait(), start.output
    start.end()
    assert codes == [1], f'{codes}: {output[-3000:]}'
    assert f'ValueError: {path} ' in output, output[-3000:]
    assert not (place / 'mark').exists(), 'it has run code'
    assert start.megabytes < MEGABYTES, f'{start.megabytes:.0f} MB'
    shutil.rmtree(place)


def cifar_pickle(folder: Path) -> None:
    """Not read unless it is the official file."""
    place = clear(folder / 'inputs' / 'cifar')
    batches = place / 'cifar-10-batches-py'
    batches.mkdir()
    for name, _ in (*OfficialCIFAR10.train_list, *OfficialCIFAR10.test_list):
        (batches / name).write_bytes(pickle.dumps(Payload(place / 'mark')))
    try:
        OfficialCIFAR10(data_root=str(place)).full_init()
    except ValueError as error:
        assert 'is not the official file' in str(error), error
    else:
        raise AssertionError('read')
    assert not (place / 'mark').exists(), 'it has run code'


def pool_record(folder: Path) -> None:
    """A job whose record is cut short, at any length, is not taken for finished."""
    place = clear(folder / 'inputs' / 'pool')
    job = Job('job', ['true'])
    record = place / 'jobs/job'
    pool = ProcessPool([job], place)
    record.parent.mkdir()
    whole = f'{pool.keys["job"]} 1700000000.5\n12345\n0\n'
    record.write_text(whole)
    assert pool.finished(job)
    for length in range(len(whole) - 1):
        for tail in ('', '\0\0', '\xff'):
            if tail == '' and whole[:length].endswith('\n0'):
                continue
            record.write_bytes((whole[:length] + tail).encode('latin-1'))
            assert not pool.finished(job), f'finished with {length} bytes'
            pool.waiting(), pool.records()


ATTACKS = {
    **{f'image: {name}': ('input: images', partial(image, name)) for name in IMAGES},
    **{
        f'{name} through {way}': ('input: checkpoints', partial(checkpoint, name, way))
        for name, way in itertools.product(CHECKPOINTS, WAYS)
    },
    'a CIFAR pickle that runs code': ('input: other', cifar_pickle),
    'a job record cut short': ('input: other', pool_record),
}

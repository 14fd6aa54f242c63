"""Files of weights: which are read, and that every way in refuses the others."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, checkpoint
from safetensors.torch import save_file
from tiny import Payload
from tiny_run import run_tool

import mmdtm.plugin  # noqa: F401
from mmdtm.evaluation.patch_zero_shot import ZeroShotCLIP
from mmdtm.io.checkpoints import read_checkpoint
from mmdtm.io.weights import read_weights
from mmdtm.models.selfsup import VQKDGenerator
from mmdtm.models.target_generators import (
    OpenCLIPGenerator,
    SLIPGenerator,
    TimmGenerator,
)

STATE = {'a.weight': torch.arange(600.0), 'b': torch.ones(2, 3)}


class Reach:
    """Gets at a function's globals with nothing but ``getattr`` when unpickled."""

    def __reduce__(self):
        return getattr, (HistoryBuffer.mean, '__globals__')


def bomb(path: Path) -> None:
    """100 MB of zeros that were compressed to a small file."""
    whole = io.BytesIO()
    torch.save({'state_dict': {'w': torch.zeros(25_000_000)}}, whole)
    with (
        zipfile.ZipFile(whole) as source,
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert path.stat().st_size < 1_000_000


def cut(path: Path) -> None:
    (save_file if path.suffix == '.safetensors' else torch.save)(STATE, path)
    path.write_bytes(path.read_bytes()[:2000])


def hostile(path: Path, **options) -> None:
    mark = path.parent / 'executed'
    torch.save({'state_dict': STATE, 'x': Payload(mark)}, path, **options)


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


def holding(content):
    return lambda path: torch.save(content, path)


# What a file is, how it is made, and what is said of it.
BAD = {
    'payload.pth': (hostile, 'is not loaded.*any code.*torch.save'),
    'legacy.pth': (
        lambda path: hostile(path, _use_new_zipfile_serialization=False),
        'is not loaded.*any code',
    ),
    'bare.pkl': (
        lambda path: path.write_bytes(pickle.dumps(Payload(path.parent / 'executed'))),
        'is not loaded.*any code',
    ),
    'reach.pth': (holding(dict(meta=Reach())), '__globals__'),
    'cut.pth': (cut, 'is not loaded.*not a checkpoint.*download it again'),
    'cut.safetensors': (cut, 'is not a whole safetensors file.*Download it again'),
    'page.pt': (
        lambda path: path.write_text('<html>404</html>'),
        'not a checkpoint.*Download it',
    ),
    'bomb.pth': (bomb, 'is not loaded.*100,0'),
    'program.pt': (script, 'TorchScript.*openai_clip_to_open_clip.py'),
    'list.pth': (holding([torch.ones(1)]), 'holds no weights.*a list'),
    'none.pth': (holding(None), 'holds no weights.*a NoneType'),
    'tensor.pth': (holding(torch.ones(1)), 'holds no weights.*a Tensor'),
    'no_state.pth': (
        holding(dict(state_dict=None, meta={})),
        'holds no weights.*state_dict, meta',
    ),
    'list_state.pth': (
        holding(dict(state_dict=[torch.ones(1)])),
        'holds no weights.*state_dict',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_file_is_named_and_nothing_in_it_runs(name, tmp_path):
    path = tmp_path / name
    make, message = BAD[name]
    make(path)
    readers = [read_weights]
    if path.suffix != '.safetensors':
        readers += [read_checkpoint, CheckpointLoader.load_checkpoint]
    for read in readers:
        with pytest.raises(ValueError, match=f'(?s){path} .*{message}') as error:
            read(str(path))
        # torch's own message goes on to say how to load it all the same.
        for advice in ('weights_only', 'safe_globals', '\x1b'):
            assert advice not in str(error.value)
    assert list(tmp_path.iterdir()) == [path], 'the payload ran'


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    bomb(tmp_path / 'bomb.pth')
    monkeypatch.setattr(torch, 'load', lambda *args, **kwargs: pytest.fail('read'))
    with pytest.raises(ValueError, match='The checkpoint is not loaded'):
        read_checkpoint(io.BytesIO((tmp_path / 'bomb.pth').read_bytes()))


def convert(script: str):
    def run(path: str) -> None:
        try:
            run_tool(f'converters/{script}', path, f'{path}.safetensors')
        except SystemExit as error:
            raise ValueError(error.code) from error

    return run


WAYS = {
    'init_cfg': lambda path: BaseModule(
        dict(type='Pretrained', checkpoint=path)
    ).init_weights(),
    'download': lambda path: checkpoint.load_url(Path(path).as_uri(), path + '.hub'),
    'OpenCLIP': lambda path: OpenCLIPGenerator('tiny', path, tiny.CLIP),
    'SLIP': lambda path: SLIPGenerator(path, SLIPGenerator.smoke['arch']),
    'timm': lambda path: TimmGenerator('test_vit', path),
    'VQ-KD': lambda path: VQKDGenerator(path, tiny.ARCH, img_size=64),
    'zero-shot': lambda path: ZeroShotCLIP('ViT-B-32', path),
    'from BEiT': convert('beit_to_mmdtm.py'),
    'to timm': convert('mmdtm_to_timm.py'),
    'to transformers': convert('mmdtm_to_transformers.py'),
}


def test_a_checkpoint_cut_anywhere_is_named(tmp_path):
    path = tmp_path / 'cut.pth'
    torch.save(dict(state_dict=dict(w=torch.randn(10_000))), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f'{path} is not loaded'):
            read_checkpoint(path)


@pytest.mark.parametrize('way', WAYS)
def test_every_way_in_runs_nothing_and_names_the_file(way, tmp_path):
    path, mark = tmp_path / 'payload.pth', tmp_path / 'executed'
    hostile(path)
    with pytest.raises(ValueError, match='payload.pth is not loaded.*any code'):
        WAYS[way](str(path))
    assert not mark.exists(), 'the payload ran'
    assert not list(tmp_path.glob('*.safetensors'))
    # It works where nobody forbids it.
    torch.load(path, weights_only=False)
    assert mark.exists()
    if way not in ('init_cfg', 'download'):  # mmengine's and torch's own words
        with pytest.raises((FileNotFoundError, ValueError), match=r'absent\.pth'):
            WAYS[way](str(tmp_path / 'absent.pth'))


LOG = dict(log_scalars={'train/loss': HistoryBuffer([0.5], [1])}, runtime_info={})
GOOD = {
    'plain': STATE,
    'wrapped': {'epoch': 3, 'name': 'x', 'state_dict': STATE},
    'model': {'model': STATE},
    'module': {'module': STATE},
    'DDP': {'state_dict': {f'module.{k}': v for k, v in STATE.items()}},
    'half': {name: value.half() for name, value in STATE.items()},
    'runner': {'state_dict': STATE, 'meta': {}, 'message_hub': LOG},
}


@pytest.mark.parametrize('form', GOOD)
def test_every_form_gives_the_same_weights(form, tmp_path):
    torch.save(GOOD[form], tmp_path / 'a.pth')
    found, metadata = read_weights(tmp_path / 'a.pth')
    assert list(found) == list(STATE) and metadata == {}
    for name, value in STATE.items():
        assert torch.equal(found[name].float(), value)


def test_safetensors_give_weights_and_metadata(tmp_path):
    save_file(STATE, tmp_path / 'a.safetensors', metadata=dict(quick_gelu='true'))
    found, metadata = read_weights(tmp_path / 'a.safetensors')
    assert metadata == dict(quick_gelu='true') and found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())


def test_tensors_that_claim_more_than_the_file_has_are_refused(tmp_path):
    path = tmp_path / 'claims.pth'
    torch.save({'state_dict': {'w': torch.zeros(1).expand(2**20, 2**20)}}, path)
    for load in (CheckpointLoader.load_checkpoint, read_weights):
        with pytest.raises(ValueError, match=f'{path} is not loaded: w has .*1048576'):
            load(str(path))
    torch.save({'w': torch.zeros(1).expand(100, 100)}, path)  # harmless
    assert read_weights(path)[0]['w'].shape == (100, 100)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'ema_state_dict'])
def test_values_that_are_not_finite_are_refused(tmp_path, value, wrapper):
    path = tmp_path / 'diverged.pth'
    weights = dict(good=torch.ones(3), bad=torch.tensor([1, value]).half())
    torch.save({wrapper: weights} if wrapper else weights, path)
    loads = [CheckpointLoader.load_checkpoint]
    loads += [read_weights] if wrapper != 'ema_state_dict' else []
    for load in loads:
        with pytest.raises(ValueError, match=f'{path} has NaN.* 1 of 2 tensors: bad'):
            load(str(path))


def test_masks_and_numbers_of_eight_bits_are_finite(tmp_path):
    weights = dict(mask=torch.tensor([0.0, -np.inf]), index=torch.arange(3))
    weights['small'] = torch.ones(2).to(torch.float8_e4m3fn)
    torch.save(weights, tmp_path / 'good.pth')
    assert len(read_weights(tmp_path / 'good.pth')[0]) == 3

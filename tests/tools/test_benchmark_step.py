"""The step's benchmark: its values, what they are shares of, and its contenders."""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmpretrain.registry import MODELS
from tiny_run import ROOT, forget_new
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mmdtm.plugin  # noqa: F401
from mmdtm.models.backbones.dtm_vit import Attention
from mmdtm.models.morphings import BipartiteMorphing
from mmdtm.morphing import bipartite_matching, dtm_loss
from mmdtm.report import find_runs
from mmdtm.smoke import shrink_model

sys.path.append(f'{ROOT}/tools/benchmark')
import contenders  # noqa: E402
import gpu  # noqa: E402
import release_style  # noqa: E402
import scaling  # noqa: E402
import step  # noqa: E402

NAMES = ['kmeans', 'layer-wise-kmeans', 'dtm', 'dtm', 'token-wise']


@pytest.fixture(autouse=True)
def _forget():
    with forget_new(DefaultScope, MessageHub, MMLogger, Visualizer):
        yield


@pytest.mark.slow
def test_all_contenders_in_one_run(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'results.json'
    options = '--amp --smoke --release-style --batch-size 3 --steps 2 --warmup 1'
    monkeypatch.setattr(sys, 'argv', ['', *options.split(), '--out', str(out)])
    runpy.run_path(f'{ROOT}/tools/benchmark/throughput.py', run_name='__main__')
    results = json.loads(out.read_text())
    assert (results['kind'], results['batch']) == ('throughput', 3)
    rows = results['rows']
    assert [row['name'].split('_')[0] for row in rows] == NAMES
    for row in rows:
        assert abs(row['images_per_second'] * row['seconds_per_step'] - 3) < 1e-6
        parts = [row[f'{part}_ms'] for part in contenders.PARTS]
        assert sum(parts) == pytest.approx(1e3 * row['seconds_per_step'], rel=0.5)
        assert all(row[f'{p}_ms'] > 0 for p in ('teacher', 'backward', 'optimizer'))
        assert row['kernels'] > 300
    release, dtm, token_wise = rows[2:]
    assert [row['waits'] for row in rows] == [0, 0, 1, 0, 0]
    assert release['copy_ms'] < dtm['copy_ms']  # nothing is normalised in the step
    assert token_wise['relative_throughput'] == 1
    assert 'median of 2 steps' in capsys.readouterr().out
    # Beside the baseline each row is compared with the paper's share of its speed.
    runs, problems = find_runs([tmp_path])
    assert problems == [] and all(run.smoke for run in runs)
    printed = [[cell.printed for cell in run.cells] for run in runs]
    assert printed == [['0.335'], ['0.867'], [], ['0.990'], ['1.000']]


@pytest.mark.slow
def test_a_student_in_stages_beside_its_token_wise_baseline(tmp_path, monkeypatch):
    config, out = f'{ROOT}/configs/backbones/dtm_swin-t_300e.py', tmp_path / 'out.json'
    options = '--smoke --batch-size 2 --steps 2 --warmup 0 --token-wise --out'
    monkeypatch.setattr(sys, 'argv', ['', config, *options.split(), str(out)])
    runpy.run_path(f'{ROOT}/tools/benchmark/step.py', run_name='__main__')
    dtm, token_wise = json.loads(out.read_text())['rows']
    assert token_wise['name'] == f'{dtm["name"]}, token-wise'
    assert token_wise['relative_throughput'] == 1 != dtm['relative_throughput']
    assert dtm['kernels'] > token_wise['kernels'] + 40  # of the matching


def built(smoke: bool, device: str = 'cpu'):
    """The token-wise baseline's model, with a teacher of random weights."""
    cfg = Config.fromfile(f'{ROOT}/configs/baseline/token-wise_vit-b_300e.py').model
    cfg.target_generator.random_weights = True
    if smoke:
        shrink_model(cfg)
    with pytest.warns(UserWarning, match='RANDOM'), torch.device(device):
        return MODELS.build(dict(cfg, _scope_='mmpretrain'))


def test_flop_of_an_image():
    assert round(contenders.step_flop(built(False, 'meta')) / 1e9) == 141
    model, images = built(True), 2
    views = [torch.zeros(images, 3, 64, 64) for _ in range(2)]
    mask = torch.ones(images, 4, 4, dtype=torch.bool)
    torch.backends.mha.set_fastpath_enabled(False)  # which hides its products
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model.loss(views, None, mask)['loss'].backward()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    counted = counter.get_total_flops() / images
    assert contenders.step_flop(model) == pytest.approx(counted, rel=1e-3)


def test_the_peak_is_by_the_clock_of_the_steps():
    """Seconds of the CPU, of which other work there leaves a step as many."""
    times = iter(range(10))
    peak, _ = contenders.device_peak(torch.device('cpu'), lambda: next(times))
    assert peak == 2 * 1536**3


def test_draws_are_even():
    morphing = BipartiteMorphing(levels=2, seed=0)
    draws, seen = contenders.EvenDraws(morphing, 196, 28), []
    draws.assign = lambda *_, **__: seen.append(
        (morphing.num_iters, morphing.num_morphed)
    )
    tokens = torch.zeros(1, 196, 2)
    for _ in range(28):
        morphing.forward(tokens)
    for level in (0, 1):
        iters, groups = zip(*seen[level::2], strict=True)
        assert Counter(iters) == dict.fromkeys(range(1, 15), 2)
        assert sorted(groups) == [int(1 + 7 * (i + 0.5)) for i in range(28)]
    assert seen[::2] != seen[1::2]
    draws.fixed = True
    morphing.forward(tokens)
    assert seen[-1] == (7, 98)


def test_a_part_within_another_counts_for_itself():
    times = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    clock = contenders.Clock(torch.device('cpu'))
    clock.now = lambda: next(times)
    clock.start()
    with clock.part('teacher'), clock.part('matching'):
        pass
    clock.stop()
    (seconds,) = clock.read()
    assert {k: v for k, v in seconds.items() if v} == dict(
        rest=1.0 + 5.0, teacher=2.0 + 4.0, matching=3.0
    )


@pytest.mark.parametrize('schedule', [(4,), (2, 0, 5), (20, 0, 0, 0, 0)])
def test_release_style__same_groups_loss_and_gradients(schedule):
    u, v = torch.randn(2, 3, 17, 5, dtype=torch.float64)
    ours, sources = bipartite_matching(v, schedule), []
    sources = [release_style.match_features(v, schedule)]
    assert torch.equal(sources[0].argmax(1), ours.labels)
    assert torch.equal(sources[0], ours.matrix(torch.float64))
    results = []
    for loss, groups in (
        (dtm_loss, [ours]),
        (release_style.source_loss, sources),
    ):
        online = u.clone().requires_grad_()
        value = loss(online, v, groups)
        value.backward()
        results.append((value.detach(), online.grad))
    torch.testing.assert_close(*results)


def test_release_style__same_attention():
    layer = Attention(12, 3, 'qv_bias', (2, 2))
    torch.nn.init.normal_(layer.q_bias)
    torch.nn.init.normal_(layer.v_bias)
    x, bias = torch.randn(2, 5, 12), torch.randn(3, 5, 5)
    torch.testing.assert_close(release_style.attend(layer, x, bias), layer(x, bias))


@pytest.mark.slow
def test_scaling__axes_processes_and_picture(tmp_path, monkeypatch):
    commands, run = [], scaling.subprocess.run

    def in_this_process(command, *args, **kwargs):
        if isinstance(command, str):  # mmengine asks for compilers
            return run(command, *args, **kwargs)
        commands.append(command)
        start = command.index(f'{ROOT}/tools/benchmark/step.py') + 1
        rest = [word for word in command[start:] if word != '--launcher=pytorch']
        return step.main(rest)

    monkeypatch.setattr(scaling.subprocess, 'run', in_this_process)
    out = tmp_path / 'scaling.json'
    options = '--smoke --steps 1 --warmup 0 --base-batch 2 --batch 1 2 --tokens'
    options += ' --iterations 1 --width --processes 3'
    scaling.main([*options.split(), '--out', str(out)])
    result = json.loads(out.read_text())
    points = [(row['axis'], row['value']) for row in result['rows']]
    expected = [('batch', 1), ('batch', 2), ('iterations', 1), ('processes', 3)]
    assert points == expected
    assert '--nproc_per_node=3' in commands[0]
    runs, problems = find_runs([tmp_path])
    assert problems == [] and len(runs) == 4
    assert runs[0].pictures[0][0] == out.with_suffix('.png')


def test_scaling__one_thing_changes_along_an_axis():
    args = scaling.parse_args([])
    base = scaling.point(args, 'batch', 8)[1].model
    for axis, value, changed in (
        ('tokens', 400, dict(img_size=320)),
        ('width', 128, None),
        ('iterations', 3, {}),
    ):
        batch, cfg = scaling.point(args, axis, value)
        assert batch == 8
        backbone = cfg.model.backbone
        if changed is not None:
            assert backbone == base.backbone | changed
        else:
            assert (backbone.arch.embed_dims, backbone.arch.num_heads) == (128, 2)
    assert cfg.model.morphing == base.morphing | dict(num_iters=3)


def test_gpu__refuses_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='torch sees none. Run it'):
        gpu.main([])


def test_gpu__commands_are_those_of_the_step(monkeypatch):
    given = []
    monkeypatch.setattr(step, 'main', lambda argv: given.append(step.parse_args(argv)))
    args = gpu.parse_args(['--batch-size', '64'])
    for name in ('compiled', 'table-11', 'release-style'):
        gpu.MEASUREMENTS[name](args)
    assert [g.batch_size for g in given] == [128, 512, 1024, 64, 64]
    assert [len(g.configs) for g in given] == [1, 1, 1, 3, 1]
    assert all(g.turn == 10 and Path(c).exists() for g in given for c in g.configs)


@pytest.mark.filterwarnings('ignore:flex_attention called without')
def test_gpu__ways_to_attend_agree():
    q, k, v = torch.randn(3, 2, 3, 9, 16)
    bias = torch.randn(3, 9, 16, requires_grad=True)
    with torch.compiler.set_stance('force_eager'):
        ways = gpu.attentions(q, k, v, bias[..., :9])
        with torch.no_grad():
            outputs = {name: way() for name, way in ways.items()}
        del ways['FlexAttention']  # no gradient of it on a CPU
        gradients = [
            torch.autograd.grad(w().square().sum(), bias) for w in ways.values()
        ]
    for output in outputs.values():
        torch.testing.assert_close(output, outputs['materialised'])
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])

"""Student and teacher compiled: one graph each, whatever the schedules are."""

import copy
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdtm.engine.launch import build_runner

graphs = []


def counting(graph, inputs):
    """A backend that counts, and computes as without compilation."""
    graphs.append(graph)
    return graph


@pytest.fixture(autouse=True)
def _fresh():
    graphs.clear()
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_two_graphs_for_fifty_steps_with_the_outputs_of_eager(dtm_cfg, build, batch):
    dtm_cfg['morphing'] = dict(type='BipartiteMorphing', num_iters=(1, 8), seed=0)
    eager = build(copy.deepcopy(dtm_cfg))
    model = build(dict(dtm_cfg, compile=dict(backend=counting)))
    model.load_state_dict(eager.state_dict())
    assert model.state_dict().keys() == eager.state_dict().keys()
    optimizers = [
        torch.optim.SGD(each.parameters(), lr=0.01) for each in (eager, model)
    ]
    drawn = set()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(50):
            losses = []
            for each, optimizer in zip((eager, model), optimizers, strict=True):
                data = each.data_preprocessor(batch(seed=step), training=True)
                loss = each(**data, mode='loss')['loss']
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            assert losses[0] == pytest.approx(losses[1], rel=1e-5)
            view = data['inputs'][1]
            levels = each.target_generator.targets(view, each.morphing.eval())[1]
            each.morphing.train()
            drawn.add(tuple(level.num_morphed for level in levels))
    assert len(graphs) == 2 and len(drawn) > 10


def test_mmengines_key_compiles_the_parts_or_is_refused():
    cfg = Config(dict(compile=True, model=dict(type='ImageClassifier')))
    with pytest.raises(ValueError, match='ImageClassifier. Remove compile'):
        build_runner(Config(dict(cfg, launcher='none')))
    options = dict(backend='eager')
    cfg = Config(dict(compile=options, model=dict(type='DTM')))
    with mock.patch.object(Runner, 'from_cfg') as from_cfg:
        from_cfg.return_value.visualizer._vis_backends = {}
        build_runner(Config(dict(cfg, launcher='none')))
    (built,) = from_cfg.call_args.args
    assert 'compile' not in built and built.model.compile == options

"""Two gloo processes take the step that one takes on both halves."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from tiny_run import run_processes


def _gradients(model) -> dict[str, torch.Tensor]:
    inner = getattr(model, 'module', model)
    return {n: p.grad for n, p in inner.named_parameters() if p.grad is not None}


def _worker(rank: int, port: int, model, half: dict, folder) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    try:
        # As configs/_base_/default_runtime.py, and the graph is the same in every step.
        model = MMDistributedDataParallel(
            model,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            static_graph=True,
        )
        for _ in range(2):  # the second step's draws differ from the first's
            model.zero_grad()
            data = model.module.data_preprocessor(half, training=True)
            model(**data, mode='loss')['loss'].backward()
        torch.save(_gradients(model), folder / f'{rank}.pt')
        dist.barrier()  # neither leaves while the other still receives
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(dtm_cfg, build, batch, tmp_path):
    dtm_cfg['morphing'].update(share_across_ranks=True, partition='random')
    model = build(dtm_cfg)
    data = batch(4)
    halves = [
        dict(inputs=data['inputs'][part], data_samples=data['data_samples'][part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    # Copies: processes share the memory of tensors they are given, and pickling
    # a DataSample changes it.
    copies = [copy.deepcopy((model, half)) for half in halves]
    arguments = [(rank, port, *copies[rank], tmp_path) for rank in range(2)]
    run_processes(_worker, arguments)

    for _ in range(2):
        model.zero_grad()
        views = model.data_preprocessor(data, training=True)
        model(**views, mode='loss')['loss'].backward()
    expected = _gradients(model)
    assert expected
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5 * value.abs().max().item()
            )


def test_ranks_draw_differently_unless_told(dtm_cfg, build, monkeypatch):
    tokens = torch.randn(2, 16, 24)
    dtm_cfg['morphing'].update(levels=8)
    model = build(dtm_cfg)
    drawn = {}
    for share in (False, True):
        for rank in (0, 1):
            monkeypatch.setattr('mmdtm.models.morphings.get_rank', lambda r=rank: r)
            model.morphing.share_across_ranks = share
            model.morphing.eval()
            drawn[share, rank] = [a.num_morphed for a in model.morphing(tokens)]
    assert drawn[False, 0] != drawn[False, 1]
    assert drawn[True, 0] == drawn[True, 1]

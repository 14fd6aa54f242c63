"""Work folders as mmengine and RunRecordHook leave them, without the training."""

import json
from pathlib import Path

EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=2)


def lineage(*configs: str, **more) -> dict | None:
    """Of a run of the last config, whose weights came from the one before it."""
    if not configs:
        return None
    parent = lineage(*configs[:-1], **more)
    found = dict(id=' < '.join(configs[::-1]), config=configs[-1], title='')
    return found | dict(smoke=False, changes={}, parent=parent) | more


def write_record(
    folder: Path, kind: str, *configs: str, loop: dict = EPOCHS, lr=5e-4, **more
) -> None:
    """Write ``run.json``.

    Args:
        folder: Where to.
        kind: Of the run.
        *configs: Its config's name, the last, and those of its ancestors.
        loop: The config's ``train_cfg``.
        lr: The config's learning rate.
        **more: Other fields of the record.
    """
    optimizer = dict(lr=lr, weight_decay=0.05)
    start = dict(
        time='2026-01-01T12:00:00+00:00',
        command='tools/train.py CONFIG',
        seed=0,
        code=dict(version='9.9', commit='c0ffee' + 34 * '0', changed=True),
        versions=dict(torch='2.0', mmengine='0.10'),
        hardware=dict(host='here', gpus=['V100', 'V100'], processes=2),
    )
    record = lineage(*configs) | dict(
        kind=kind,
        test=False,
        teachers=[dict(type='OpenCLIPGenerator', weights_sha256='ab' * 32)],
        files={},
        full_config=dict(
            optim_wrapper=dict(optimizer=optimizer),
            randomness=dict(seed=0),
            train_cfg=loop,
        ),
        starts=[start],
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'run.json').write_text(json.dumps(record | more))


def write_logs(
    folder: Path,
    train: list[dict],
    val: list[dict],
    start: str = '20260101_120000',
    ends: str = '2026/01/01 13:30:00',
) -> Path:
    """Write a start's log and scalars.

    Args:
        folder: The work folder.
        train: Rows of training.
        val: Rows of validation, written after all of the training.
        start: Name of the start's folder.
        ends: Time of its last log line; the first is 12:00 of that day.
    """
    vis = folder / start / 'vis_data'
    vis.mkdir(parents=True)
    day = ends.split()[0]
    (folder / start / f'{start}.log').write_text(
        f'{day} 12:00:00 - mmengine - INFO - \n---\nSystem environment:\n'
        f'{ends} - mmengine - INFO - Saving checkpoint at 2 epochs\n'
    )
    lines = [json.dumps(row) for row in [*train, *val]]
    (vis / 'scalars.json').write_text('\n'.join(lines) + '\n')
    return folder


def epoch_rows(losses: list[float], per_epoch: int) -> list[dict]:
    """Training rows, one an iteration."""
    return [
        {
            'lr': 1e-4,
            'data_time': 0.01,
            'loss': loss,
            'time': 0.5,
            'epoch': i // per_epoch + 1,
            'iter': i + 1,
            'memory': 0,
            'step': i + 1,
        }
        for i, loss in enumerate(losses)
    ]


def iteration_rows(losses: list[float]) -> list[dict]:
    """Training rows of a run that counts no epochs."""
    rows = epoch_rows(losses, 1)
    for row in rows:
        del row['epoch']
    return rows


def accuracy_rows(values: list[float]) -> list[dict]:
    """Validation rows, one an epoch."""
    return [
        {
            'accuracy/top1': value,
            'accuracy/top5': min(100.0, value + 10),
            'data_time': 0.1,
            'time': 0.2,
            'step': i + 1,
        }
        for i, value in enumerate(values)
    ]

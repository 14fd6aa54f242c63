"""Work dirs as mmengine leaves them, without the training."""

import json
from pathlib import Path

CONFIGS = dict(
    pretrain="""
model = dict(type='DTM', backbone=dict(type='DTMPretrainViT'), head=None)
optim_wrapper = dict(optimizer=dict(lr=0.00015, type='AdamW', weight_decay=0.05))
randomness = dict(seed=0)
train_cfg = dict(max_epochs={epochs}, type='EpochBasedTrainLoop')
""",
    finetune="""
model = dict(backbone=dict(type='DTMViT'), type='ImageClassifier')
optim_wrapper = dict(optimizer=dict(lr={lr}, type='AdamW', weight_decay=0.05))
randomness = dict(seed={seed})
train_cfg = dict(max_epochs={epochs}, type='EpochBasedTrainLoop', val_interval=1)
train_dataloader = dict(dataset=dict(pipeline=[dict(type='A')], type='{dataset}'))
""",
    segment="""
model = dict(backbone=dict(type='mmpretrain.DTMViT'), type='EncoderDecoder')
train_cfg = dict(max_iters={iters}, type='IterBasedTrainLoop', val_interval=10)
""",
)


def write_run(
    folder: Path,
    recipe: str,
    config: str,
    train: list[dict],
    val: list[dict],
    start: str = '20260101_120000',
    ends: str = '2026/01/01 13:30:00',
    **numbers,
) -> Path:
    """Write a run's config, log and scalars.

    Args:
        folder: The work dir.
        recipe: A key of ``CONFIGS``.
        config: The config's name.
        train: Rows of training.
        val: Rows of validation, written after all of the training.
        start: Name of the start's folder.
        ends: Time of its last log line; the first is 12:00 of that day.
        **numbers: What the recipe leaves open.
    """
    vis = folder / start / 'vis_data'
    vis.mkdir(parents=True)
    defaults = dict(lr=5e-4, seed=0, epochs=2, iters=20, dataset='CustomDataset')
    text = CONFIGS[recipe].format(**(defaults | numbers))
    (folder / f'{config}.py').write_text(text)
    (vis / 'config.py').write_text(text)
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

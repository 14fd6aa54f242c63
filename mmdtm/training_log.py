"""Read the scalars that mmengine writes beside a training run.

mmengine appends one JSON object a line to
``WORK_DIR/TIMESTAMP/vis_data/scalars.json`` (and the same lines to
``TIMESTAMP.json`` there), training and validation rows mixed. A resumed or
restarted run leaves one such folder for each start.
"""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from mmdtm.io import parse_json
from mmdtm.run_record import read_record


@dataclass
class TrainingLog:
    """The rows of one work dir, oldest first, each step once.

    Attributes:
        path: The work dir, or the file, that was asked for.
        train: Rows of training iterations; ``row['step']`` is the iteration,
            counted from 1, and ``row['epoch']``, where the run counts
            epochs, the epoch it belongs to.
        val: Rows of validations; ``row['step']`` is the number of epochs
            trained (of iterations where the run does not count epochs).
        broken: Where a line is not a row, as ``'FILE:LINE'``; the last line of a
            run that was killed while writing is the usual case.
    """

    path: Path
    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def iters_per_epoch(self) -> float | None:
        """Iterations of one epoch; None where the run counts no epochs."""
        # mmengine does not write it. It is at least step / epoch in every row, and
        # equal to it in a row that closes an epoch.
        ratios = [row['step'] / row['epoch'] for row in self.train if row.get('epoch')]
        return max(ratios, default=None)

    def series(
        self, rows: str, key: str, in_steps: bool = False
    ) -> tuple[list[float], list[float]]:
        """Positions and values of a key in ``'train'`` or ``'val'``.

        Positions are epochs where the run counts them, unless ``in_steps``; else
        iterations.
        """
        iters = self.iters_per_epoch or 1
        # Training rows count iterations, validation rows epochs.
        scale = 1 if (rows == 'train') == in_steps else iters if in_steps else 1 / iters
        points = [
            (row['step'] * scale, row[key])
            for row in getattr(self, rows)
            if type(row.get(key)) in (int, float)
        ]
        return [x for x, _ in points], [y for _, y in points]


def read_training_log(path: str | Path) -> TrainingLog:
    """Collect the log of a work dir, over all of its starts.

    Rows of an earlier start from the first step of a later one on are dropped:
    a resumed run has trained them again, a restarted one has thrown them away.

    Args:
        path: A work dir, one of its timestamped folders, or a log file.

    Raises:
        FileNotFoundError: If there is no such path or no log in it.
        ValueError: If the log has no readable row.
    """
    path = Path(path)
    log = TrainingLog(path)
    files = _log_files(path)
    for file in files:
        rows = _read_rows(file, log.broken)
        train = [row for row in rows if 'iter' in row or 'epoch' in row]
        val = [row for row in rows if 'iter' not in row and 'epoch' not in row]
        log.train = _continue(log.train, train)
        log.val = _continue(log.val, val)
    if not log.train and not log.val:
        raise ValueError(
            f'{files[-1]}: no readable row. The run ended before its first log '
            'interval, or the file is not an mmengine log.'
        )
    return log


def pretrained_epochs(log: TrainingLog) -> int | None:
    """Epochs of the checkpoint that a run started from; None if it is not known.

    Raises:
        ValueError: If the run's record is damaged.
    """
    for folder in [log.path, *log.path.resolve().parents[:3]]:
        record = read_record(folder)
        if record:
            return (record['parent'] or {}).get('epoch')
    return None


def reference_logs(start: str = '') -> dict[str, TrainingLog]:
    """Losses of known runs by name, to lay one's own over them.

    ``reference_losses.json`` says of each which config, data, teacher, batch and seed
    it had, and how it was run.

    Args:
        start: Of the names that are wanted.

    Raises:
        ValueError: If no name begins so.
    """
    content = parse_json(files('mmdtm').joinpath('reference_losses.json').read_text())
    found = {
        name: TrainingLog(
            Path(name), [dict(step=step, loss=loss) for step, loss in run['losses']]
        )
        for name, run in content.items()
        if name.startswith(start)
    }
    if not found:
        raise ValueError(
            f'No reference run is called {start}.... Take one of {", ".join(content)}.'
        )
    return found


def _log_files(path: Path) -> list[Path]:
    """Log files under a path, one for each start, oldest first."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f'{path} does not exist. Name the work folder of a run, or a log.'
        )
    files = []
    for folder in sorted({*path.glob('vis_data'), *path.glob('*/vis_data')}):
        found = [folder / 'scalars.json', *sorted(folder.glob('[0-9]*_[0-9]*.json'))]
        files += [file for file in found if file.is_file()][:1]
    if not files:
        raise FileNotFoundError(
            f'{path}: no mmengine log (TIMESTAMP/vis_data/scalars.json). Give the '
            'work dir of a run that has logged at least once.'
        )
    return files


def _read_rows(file: Path, broken: list[str]) -> list[dict]:
    rows = []
    text = file.read_text(encoding='utf-8', errors='replace')
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and _has_places(row):
            rows.append(row)
        else:
            broken.append(f'{file}:{number}')
    return rows


def _has_places(row: dict) -> bool:
    """Whether a row says with plain numbers where in the run it belongs."""
    places = [row.get('step'), row.get('epoch', 0), row.get('iter', 0)]
    return all(type(n) in (int, float) and 0 <= n < 2**53 for n in places)


def _continue(old: list[dict], new: list[dict]) -> list[dict]:
    if not new:
        return old
    return [row for row in old if row['step'] < new[0]['step']] + new

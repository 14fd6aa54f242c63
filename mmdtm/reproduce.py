"""The chains of commands behind the paper's tables and figures.

A chain is what its configs' cards say: the pre-training's command, then that of
each config whose value the table prints, then its test. Each run lies in the
folder of the run that it starts from, so that tables share what they have in
common::

    ROOT/dtm_vit-b_300e/                                    tables 4, 5, 6, 7, 8, 11
    ROOT/dtm_vit-b_300e/finetune/dtm_vit-b_100e_in1k/       tables 4, 5, 8, 11
    ROOT/dtm_vit-b_300e/finetune/dtm_vit-b_100e_in1k/test/

What is done is told by the runs' records (:mod:`mmdtm.run_record`) and logs, not
by notes of this module, so that runs started by hand count as well.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmdtm import run_record
from mmdtm.io import write_text
from mmdtm.report.cards import Card, read_card
from mmdtm.report.paper import Cell, paper_tables
from mmdtm.report.runs import read_run

ROOT = run_record.PACKAGE.parent
FIGURES = ('figure 2', 'figure 5', 'figure 6')
CHECKPOINT = 'PRETRAINED.pth'  # in the cards' commands
CLIP = ('--model', 'ViT-B-16', '--pretrained', 'openai')
# A CLIP for --smoke, with its text tower; open_clip's tokenizer knows that many words.
SMALL_CLIP = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=64, layers=2, width=32, head_width=16, patch_size=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1),
)


@dataclass
class Step:
    """One command of a chain.

    Attributes:
        name: Its folder or file below the root.
        title: What it is, in words.
        command: Program and arguments.
        needs: Names of the steps before it.
        makes: A file that is there once it is done.
        parent: Work folder of the run that it starts from.
    """

    name: str
    title: str
    command: list[str]
    needs: tuple[str, ...] = ()
    makes: Path | None = None
    parent: Path | None = None

    def lacks(self) -> str:
        """What the result lacks, in words; '' if the step is done."""
        there = self.makes is None or self.makes.is_file()
        return '' if there else f'did not write {self.makes}'

    def to_run(self) -> list[str]:
        """The command, told to go on where an earlier start was broken off."""
        return self.command

    def descends(self, record: dict) -> bool:
        """Whether a run's weights came from the run that now lies in ``parent``."""
        found = (record.get('parent') or {}).get('id')
        expected = run_record.read_record(self.parent) if self.parent else None
        return found == (expected['id'] if expected else None)


@dataclass
class TrainingStep(Step):
    """A training run of a config in a folder, done with its last checkpoint."""

    folder: Path = Path()
    config: str = ''
    smoke: bool = False
    checkpoint: Path = Path()

    def record(self) -> dict | None:
        """The record of the run in the folder, if it is this step's.

        Raises:
            ValueError: If the folder holds another run.
        """
        record = run_record.read_record(self.folder)
        if record is None:
            return None
        found = record['config'], bool(record.get('smoke')), record['changes']
        if found != (self.config, self.smoke, {}):
            raise ValueError(
                f'{self.folder} holds another run: of {found[0]}'
                f'{", made small" * found[1]}'
                f'{f", with other settings ({found[2]})" if found[2] else ""}. Move '
                'it away, or choose another folder with --work-dir.'
            )
        return record if self.descends(record) else None

    def lacks(self) -> str:
        if self.record() is None:
            return f'there is no run of {self.config} from its parent in {self.folder}'
        try:
            run = read_run(self.folder)
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        if not run.finished:
            return f'the run is unfinished ({run.progress})'
        return '' if self.checkpoint.is_file() else f'no {self.checkpoint}'

    def to_run(self) -> list[str]:
        begun = [*self.folder.glob('epoch_*.pth'), *self.folder.glob('iter_*.pth')]
        if self.record() is None or not begun or not self.lacks():
            return self.command
        at = self.command.index('--work-dir')
        return [*self.command[:at], '--resume', *self.command[at:]]


@dataclass
class TestStep(Step):
    """A test of its parent's last checkpoint."""

    folder: Path = Path()

    def lacks(self) -> str:
        try:
            record = read_run(self.folder).record
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        tested = record and self.descends(record)
        return '' if tested else f'{self.folder} has no test of {self.parent}'


class GridStep(Step):
    """A grid search; done when it wrote its table over runs of this parent."""

    def lacks(self) -> str:
        missing = super().lacks()
        if missing or self.makes is None:
            return missing
        records = [run_record.read_record(f) for f in self.makes.parent.iterdir()]
        found = [record for record in records if record]
        if found and all(map(self.descends, found)):
            return ''
        return f'{self.makes.parent} has runs that do not start from {self.parent}'

    def to_run(self) -> list[str]:
        """Search anew where the runs come from another pre-training."""
        other = super().lacks() == '' and self.lacks()
        return [*self.command[:2], *['--force'] * bool(other), *self.command[2:]]


@dataclass
class Plan:
    """The steps behind rows of tables.

    Args:
        root: Folder for all runs.
        smoke: Make every run small, on made data.
        gpus: GPUs of one run.
    """

    root: Path
    smoke: bool = False
    gpus: int = 8
    steps: dict[str, Step] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)  # whose values the steps give

    def add(self, target: str, words: Sequence[str] = ()) -> None:
        """Add the chains of a table or figure.

        Args:
            target: ``'1'`` to ``'11'``, or one of ``FIGURES``.
            words: Limit it to the rows and columns that have all of these words.

        Raises:
            ValueError: If there is no such table, or no such row.
        """
        if target in FIGURES:
            return self._add_figure(target)
        if target not in paper_tables():
            raise ValueError(
                f'{target} is not a table with results. Name one of '
                f'{", ".join([*paper_tables(), *FIGURES])}, or all.'
            )
        cells = [c for c in paper_tables()[target].cells if c.chain and c.metric]
        chosen = [cell for cell in cells if matches(cell, words)]
        if not chosen:
            rows = dict.fromkeys(f'{cell.row}, {cell.column}' for cell in cells)
            raise ValueError(
                f'Table {target} has no row or column with the words '
                f'{" ".join(words)!r}. It has: {"; ".join(rows)}.'
            )
        self.cells += chosen
        for cell in chosen:
            self._add_cell(cell)

    def add_report(self) -> None:
        """End with the report of all that was found."""
        out = shown(self.root / 'report')
        command = ['python', 'tools/report.py', shown(self.root), '--out', out]
        self._add(Step('report', 'the report of all runs', command, tuple(self.steps)))

    def _add_cell(self, cell: Cell) -> None:
        if cell.chain[0].startswith('patches_'):
            self._add_patches()
        elif cell.metric == 'relative_throughput':
            self._add_throughput()
        elif cell.grid:
            self._add_grid(cell.chain)
        else:
            self._add_test(self._add_training(cell.chain))

    def _add(self, step: Step) -> None:
        self.steps.setdefault(step.name, step)

    def _add_training(self, chain: Sequence[str]) -> TrainingStep:
        name, config = '/'.join(chain), chain[-1]
        known = self.steps.get(name)
        if isinstance(known, TrainingStep):  # another cell's: its configs are read
            return known
        parent = self._add_training(chain[:-1]) if len(chain) > 1 else None
        card, folder = card_of(config), self.root / name
        command, options = split_options(self._command(card.command, config, parent))
        command = [*command, '--work-dir', shown(folder), *options]
        step = TrainingStep(
            name,
            f'{card.stage} {config}',
            command,
            (parent.name,) if parent else (),
            parent=parent.folder if parent else None,
            folder=folder,
            config=config,
            smoke=self.smoke,
            checkpoint=folder / last_checkpoint(config, self.smoke),
        )
        self._add(step)
        return step

    def _command(self, text: str, config: str, parent: TrainingStep | None):
        """A card's command, for this number of GPUs and this checkpoint."""
        words = shlex.split(text)
        if parent:
            words = [w.replace(CHECKPOINT, shown(parent.checkpoint)) for w in words]
        if self.smoke or (words[0].endswith('dist_train.sh') and self.gpus == 1):
            smoke, (_, options) = ['--smoke'] * self.smoke, split_options(words)
            train = ['python', 'tools/train.py', f'configs/{config}.py']
            return [*train, *smoke, *options]
        if words[0].endswith('dist_train.sh'):
            words[2] = str(self.gpus)
        return words

    def _add_test(self, run: TrainingStep) -> None:
        config = f'configs/{run.config}.py'
        if self.smoke:  # as the run itself left it, made small
            config = shown(run.folder / Path(config).name)
        words = ['python', 'tools/test.py', config, shown(run.checkpoint)]
        if self.gpus > 1 and not self.smoke:
            words = ['tools/dist_test.sh', *words[2:], str(self.gpus)]
        folder = run.folder / 'test'
        step = TestStep(
            f'{run.name}/test',
            f'test {run.config}',
            [*words, '--work-dir', shown(folder)],
            (run.name,),
            folder=folder,
            parent=run.folder,
        )
        self._add(step)

    def _add_grid(self, chain: Sequence[str]) -> None:
        parent, config = self._add_training(chain[:-1]), chain[-1]
        words = shlex.split(card_of(config).fields['Grid'])
        words = [w.replace(CHECKPOINT, shown(parent.checkpoint)) for w in words]
        gpus = min(self.gpus, int(words[words.index('--gpus') + 1]))
        number = dict(gpus=gpus, jobs=self.gpus // gpus)
        if self.smoke:  # one point, to see that it works
            number = dict(gpus=1, jobs=1)
            for option in ('--lr', '--weight-decay'):
                first = words.index(option) + 2
                while not words[first].startswith('--'):
                    del words[first]
        for option, value in number.items():
            if f'--{option}' in words:
                words[words.index(f'--{option}') + 1] = str(value)
        words[2:2] = ['--smoke'] * self.smoke
        (words, options), folder = split_options(words), self.root / '/'.join(chain)
        step = GridStep(
            '/'.join(chain),
            f'grid search {config}',
            [*words, '--work-dir', shown(folder), *options],
            (parent.name,),
            folder / 'result.json',
            parent=parent.folder,
        )
        self._add(step)

    def _add_patches(self) -> None:
        out = self.root / 'table1/patches.json'
        data = self._images('val'), '--train', self._images('train')
        words = ['python', 'tools/analysis/patch_ensemble.py', *data]
        words += [*self._clip(), '--out', shown(out)]
        self._add(Step('table1', 'patch predictions of CLIP', words, makes=out))

    def _add_throughput(self) -> None:
        """All rows in one run, the baseline last, since the others are its shares."""
        rows = reversed(list(paper_tables()['11'].rows.values()))
        configs = [f'configs/{cells[0].chain[0]}.py' for cells in rows]
        out = self.root / 'table11/throughput.json'
        size = ['--smoke', '--batch-size', '2', '--steps', '2']
        size = size if self.smoke else ['--batch-size', '128']
        words = ['python', 'tools/benchmark/step.py', *configs, *size]
        step = Step('table11', 'training throughput', [*words, '--out', shown(out)])
        step.makes = out
        self._add(step)

    def _add_figure(self, target: str) -> None:
        folder = self.root / target.replace(' ', '')
        if target != 'figure 5':
            # Figure 2 shows a sea lion (n02077923); figure 6 has more examples.
            images = self._images('val/n02077923' if target == 'figure 2' else 'val')
            words = ['python', 'tools/analysis/patch_zero_shot.py', images]
            words += [*self._clip(), '--out', shown(folder)]
            makes = folder / 'results.json'
            self._add(Step(folder.name, f'{target}: patches', words, makes=makes))
            return
        finetune = 'finetune/dtm_vit-b_100e_in1k'
        baseline = 'baseline/token-wise_vit-b_300e', 'ablation/token-wise_vit-b_100e'
        rows = dict(DTM=('dtm_vit-b_300e', 'ablation/dtm_vit-b_100e'))
        rows['baseline'] = baseline
        runs = [
            (row, self._add_training((config, finetune)))
            for row, configs in rows.items()
            for config in configs
        ]
        out = folder / 'training.png'
        words = ['python', 'tools/analysis/plot_training.py', '--out', shown(out)]
        words[2:2] = [f'{row}={shown(run.folder)}' for row, run in runs]
        needs = tuple(run.name for _, run in runs)
        self._add(Step(folder.name, 'figure 5: curves', words, needs, out))

    def _images(self, part: str) -> str:
        if not self.smoke:
            return f'data/imagenet/{part}'
        from mmdtm.smoke import draw_classes

        folder = draw_classes(self.root / 'made_data/classes')
        return shown(folder / 'train')

    def _clip(self) -> Iterable[str]:
        if not self.smoke:
            return CLIP
        path = self.root / 'made_data/clip.json'
        write_text(path, json.dumps(SMALL_CLIP))
        small = ('--model', 'small', '--model-config', shown(path), '--random-weights')
        return *small, '--classes', 'folders', '--templates', 'a photo of a {}.'


def matches(cell: Cell, words: Sequence[str]) -> bool:
    """Whether a cell's row and column have all of the words."""
    text = f'{cell.row} {cell.column}'.lower()
    return all(word.lower() in text for word in words)


def split_options(words: list[str]) -> tuple[list[str], list[str]]:
    """A command up to ``--cfg-options``, and from there on."""
    at = words.index('--cfg-options') if '--cfg-options' in words else len(words)
    return words[:at], words[at:]


def shown(path: Path) -> str:
    """A path as commands have it: below the repository, where they run, if it is."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def card_of(config: str) -> Card:
    """The card of a config by its name."""
    return read_card(ROOT / 'configs' / f'{config}.py')


def last_checkpoint(config: str, smoke: bool) -> str:
    """Name of the checkpoint that a run of a config ends with."""
    from mmdtm.smoke import STEPS

    path = ROOT / 'configs' / f'{config}.py'
    loop = Config.fromfile(path, import_custom_modules=False).train_cfg
    if 'max_epochs' in loop:
        return f'epoch_{1 if smoke else loop.max_epochs}.pth'
    return f'iter_{STEPS if smoke else loop.max_iters}.pth'

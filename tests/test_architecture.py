"""Which folder of mmdtm may use which: no arrow upwards, no circle."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import mmdtm

PACKAGE = Path(mmdtm.__file__).parent
# From the ground up: each folder or module, and those before it that it uses. The
# order is that of docs/architecture.md.
ARROWS = {
    'morphing': '',
    'compat': '',
    'io': '',
    'process_pool': '',
    'prepare': 'compat io',
    'hub': 'prepare',
    'run_record': 'io',
    'training_log': 'io run_record',
    'small_clip': 'io prepare',
    'visualization': 'io morphing',
    'report': 'io run_record training_log',
    'models': 'prepare io morphing',
    'datasets': 'prepare morphing',
    'evaluation': 'hub datasets io models morphing',
    'engine': (
        'prepare hub io run_record datasets models evaluation visualization morphing'
    ),
    'smoke': 'io run_record models engine',
    'reproduce': 'io run_record report smoke',
    'plugin': 'hub datasets models evaluation engine',
    'doctor': 'hub datasets engine plugin',
    'cli': 'hub io run_record report models evaluation engine smoke plugin doctor',
    '__main__': 'cli',
}


def imported(file: Path) -> Iterator[str]:
    """The folders and modules of mmdtm that a file imports from, at any depth."""
    place = ['mmdtm', *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            paths = [alias.name.split('.') for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = place[: len(place) + 1 - node.level] if node.level else []
            start = start + (node.module or '').split('.')
            start = [part for part in start if part]
            paths = [[*start, alias.name] for alias in node.names]
        else:
            continue
        yield from (path[1] for path in paths if path[0] == 'mmdtm' and path[1:])


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob('*.py'):
        room = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
        if room != '__init__':
            used = {name for name in imported(file) if name != '__version__'}
            found.setdefault(room, set()).update(used - {room})
    return found


def test_each_folder_uses_what_it_may():
    """A new arrow is a decision: enter it here and in docs/architecture.md."""
    assert arrows() == {room: set(used.split()) for room, used in ARROWS.items()}


def test_no_arrow_points_upwards():
    below: list[str] = []
    for room, used in ARROWS.items():
        assert set(used.split()) <= set(below), room
        below.append(room)


def test_the_core_needs_torch_alone():
    allowed = {'mmdtm', 'torch', '__future__'}
    for file in (PACKAGE / 'morphing').glob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or '']
            for name in {name.split('.')[0] for name in names} - allowed:
                assert name in sys.stdlib_module_names, f'{file}: {name}'

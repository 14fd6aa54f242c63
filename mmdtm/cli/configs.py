"""List the configs of mmdtm, or copy one to change it.

mmdtm configs                    all names, each with what it is
mmdtm configs 'finetune/*'       those that match
mmdtm configs --copy NAME FILE   a copy that inherits what NAME inherits, from anywhere
mmdtm configs --path NAME        where it is installed
"""

import argparse
import ast
import fnmatch
from pathlib import Path

from mmdtm.cli.scripts import script, script_parser
from mmdtm.hub import SCOPE, config_names, find_config, shipped
from mmdtm.io import atomic_write
from mmdtm.report.cards import read_card


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__, 'mmdtm configs')
    parser.add_argument('pattern', nargs='?', default='*', help='of names: *dtm*')
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--copy', nargs=2, metavar=('NAME', 'FILE'))
    group.add_argument('--path', metavar='NAME')
    return parser.parse_args(argv)


def copy_config(name: str, target: str | Path) -> None:
    """Copy a config of mmdtm to where its relative bases would not be found."""
    source, configs = find_config(name).resolve(), shipped('configs').resolve()
    text = source.read_text(encoding='utf-8')
    lines = text.split('\n')
    for node in reversed(_bases(ast.parse(text))):
        base = (source.parent / str(node.value)).resolve().relative_to(configs)
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = (
            line[: node.col_offset]
            + repr(SCOPE + base.as_posix())
            + line[node.end_col_offset :]
        )
    with atomic_write(target, exist_ok=False) as path:
        path.write_text('\n'.join(lines), encoding='utf-8')


def _bases(module: ast.Module) -> list[ast.Constant]:
    """The strings of ``_base_`` that are paths, in their order."""
    for statement in module.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == '_base_' for t in statement.targets
        ):
            return [
                node
                for node in ast.walk(statement.value)
                if isinstance(node, ast.Constant) and '::' not in str(node.value)
            ]
    return []


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.path:
        print(find_config(args.path))
    elif args.copy:
        copy_config(*args.copy)
    else:
        found = fnmatch.filter(config_names(), args.pattern)
        width = max(map(len, found), default=0)
        for name in found:
            title = read_card(shipped('configs') / f'{name}.py').title
            print(f'{name:{width}}  {title}')

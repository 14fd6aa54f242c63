"""Show a config with all it inherits, or what two configs differ in.

Each is a name (mmdtm configs), a file, or the work folder of a run, whose config is
that of its run.json.
"""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

import mmdtm.plugin  # noqa: F401  (makes the names known)
from mmdtm.cli.scripts import script, script_parser
from mmdtm.engine.run_description import flatten
from mmdtm.hub import get_config
from mmdtm.run_record import read_record


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__, 'mmdtm print-config')
    parser.add_argument('first', metavar='A', help='name, file or work folder')
    parser.add_argument('second', metavar='B', nargs='?', help='to compare with')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override parts of A',
    )
    return parser.parse_args(argv)


def load(source: str) -> Config:
    """The config of a name, a file or a run's folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    if Path(source).is_dir():
        record = read_record(source)
        if record is None:
            raise FileNotFoundError(
                f'{source} is a folder without run.json. Name the work folder of a '
                'run, or a config.'
            )
        return Config(record['full_config'])
    return get_config(source)


def differences(first: Config, second: Config) -> list[str]:
    """Lines of settings by their dotted names: ``-`` in A, ``+`` in B."""
    old, new = flatten(first.to_dict()), flatten(second.to_dict())
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, ...) != new.get(name, ...):
            lines += [f'- {name} = {old[name]!r}'] if name in old else []
            lines += [f'+ {name} = {new[name]!r}'] if name in new else []
    return lines


@script
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    first = load(args.first)
    first.merge_from_dict(args.cfg_options)
    if args.second is None:
        print(first.pretty_text)
    else:
        print('\n'.join(differences(first, load(args.second))))

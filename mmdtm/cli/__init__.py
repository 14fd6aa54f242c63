"""The command ``mmdtm``, for those who have mmdtm installed and no clone."""

import argparse
import importlib
import os
import sys

from mmdtm import __version__

COMMANDS = {
    'train': 'train with a config; --gpus 8 starts as many processes',
    'test': 'test a checkpoint; --gpus likewise',
    'pretrain': 'pre-train on a folder of images; keep the model in all forms',
    'embed': 'write vectors or patch tokens of a folder of images',
    'doctor': 'say what is wrong with a config here',
    'configs': 'list the configs, or copy one to change it',
    'print-config': 'show a config with all it inherits, or what two differ in',
}


def main(argv: list[str] | None = None) -> None:
    """Run ``mmdtm COMMAND ...``; wrong input ends with one message."""
    argv = sys.argv[1:] if argv is None else argv
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog='mmdtm',
        description='Masked Image Modeling via Dynamic Token Morphing.',
        epilog='commands, each with its own --help:\n'
        + '\n'.join(f'  {name:{width}}  {what}' for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...')
    args = parser.parse_args(argv)
    if args.command in ('train', 'test'):
        start_processes(args.command, args.arguments)
    module = importlib.import_module(f'mmdtm.cli.{args.command.replace("-", "_")}')
    module.main(args.arguments)


def start_processes(command: str, arguments: list[str]) -> None:
    """Become tools/dist_train.sh or dist_test.sh if ``--gpus`` is given."""
    from mmdtm.hub import shipped

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--gpus', type=int)
    args, rest = parser.parse_known_args(arguments)
    if args.gpus is None:
        return
    named = 1 if command == 'train' else 2  # CONFIG, and CHECKPOINT
    script = str(shipped('tools') / f'dist_{command}.sh')
    words = ['bash', script, *rest[:named], str(args.gpus), *rest[named:]]
    os.environ.setdefault('PYTHON', sys.executable)
    os.execvp('bash', words)

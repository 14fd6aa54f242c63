"""What commands and the scripts in tools/ and examples/ have in common."""

import argparse
import functools
import sys
from collections.abc import Callable


class Help(
    argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
):
    """The description as it is written, and each option with its default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unsaid = action.default is None or action.default is False
        return action.help if unsaid else super()._get_help_string(action)


def script_parser(
    description: str | None, prog: str | None = None
) -> argparse.ArgumentParser:
    """A parser for the script, or command, whose docstring is the description."""
    return argparse.ArgumentParser(prog, description=description, formatter_class=Help)


def script(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Let wrong input end a script with its message, no traceback, and the status 1.

    So do packages that are not installed.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except (ImportError, OSError, ValueError) as error:
            sys.exit(f'error: {error}')

    return run

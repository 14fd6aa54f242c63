"""How long ``import mmdtm.plugin`` takes beside ``import mmpretrain``.

    python tools/benchmark/import_time.py --repeats 5

Processor seconds of fresh interpreters, in turns, so that what else the machine does
counts for both; the median of each.
"""

import resource
import statistics
import subprocess
import sys

from mmdtm.cli.scripts import script_parser

STATEMENTS = ('import mmpretrain', 'import mmdtm.plugin')


def processor_seconds(statement: str) -> float:
    """User and system time of an interpreter that runs a statement."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run([sys.executable, '-c', statement], check=True, capture_output=True)
    return spent() - before


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument('--repeats', type=int, default=5, help='of each import')
    repeats = parser.parse_args().repeats
    for statement in STATEMENTS:  # once each for the disk's cache
        processor_seconds(statement)
    turns = [[processor_seconds(s) for s in STATEMENTS] for _ in range(repeats)]
    theirs, ours = (statistics.median(column) for column in zip(*turns, strict=True))
    for statement, seconds in zip(STATEMENTS, (theirs, ours), strict=True):
        print(f'{statement:22} {seconds:6.2f} s')
    print(f'{ours - theirs:.2f} s more, {ours / theirs:.2f} times as long')


if __name__ == '__main__':
    main()

"""Say what is wrong with a config on this machine, before any GPU is taken.

Unknown names of settings, missing data and weights, fewer images than a step takes, a
full disk; and an estimate of memory. Ends with 1 if something stops the run.
"""

import sys

from mmdtm.cli.scripts import script
from mmdtm.doctor import diagnose
from mmdtm.engine.launch import argument_parser, load_config


@script
def main(argv: list[str] | None = None) -> None:
    args = argument_parser(__doc__).parse_args(argv)
    findings = diagnose(load_config(args))
    for finding in findings:
        print(f'{"error:" if finding.stops else "ok:":6} {finding.text}')
    sys.exit(any(finding.stops for finding in findings))

"""The report of all runs beside the paper's tables (docs/report.md).

    from mmdtm.report import build_report, write_result

    write_result(folder, 'linear probe', 'DTM', {'accuracy/top1': 71.2}, seconds=40)
    report = build_report([work_dir], out=work_dir / 'report')

Reads files and writes files; it needs no part of OpenMMLab.
"""

from .report import Report, build_report
from .results import write_result
from .run import Run
from .runs import find_runs, read_run

__all__ = [
    'Report',
    'Run',
    'build_report',
    'find_runs',
    'read_run',
    'write_result',
]

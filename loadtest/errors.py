"""What stops a bench before, or instead of, its measurements.

    BenchError
    ├── OptionError     an option's value cannot be used
    ├── WorkloadError   the workload cannot be read or used
    ├── TargetError     the target cannot be reached, or refuses what every turn would need
    ├── ReportError     a report cannot be read or written
    └── ClientError     a measuring process of ours ended as it should not

A turn that fails is no exception: it is a `TurnResult` with an outcome. Every message here names what it is about
and ends with the next step.
"""

from __future__ import annotations


class BenchError(Exception):
    """The base of all errors of this package."""


class WorkloadError(BenchError):
    pass


class TargetError(BenchError):
    pass


class OptionError(BenchError):
    pass


class ReportError(BenchError):
    pass


class ClientError(BenchError):
    pass

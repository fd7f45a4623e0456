"""What stops a bench before, or instead of, its measurements.

    BenchError
    ├── WorkloadError   the workload file cannot be read or used
    └── TargetError     the target cannot be reached, or refuses what every turn would need

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

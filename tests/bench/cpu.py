"""CPU time of processes: utime + stime, from the kernel's per-process clock.

The same sum that `/proc/<pid>/stat` shows, which counts it in hundredths of a second; the clock has nanoseconds.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

_libc = ctypes.CDLL(None)


class Sample(NamedTuple):
    at: float
    cpu_s: dict[str, float]


def take_sample(pids: Mapping[str, Sequence[int]]) -> Sample:
    """CPU seconds of each part so far, and of this process as `client`."""
    cpu_s = {part: sum(map(cpu_time, members)) for part, members in pids.items()}
    cpu_s["client"] = time.process_time()
    return Sample(time.perf_counter(), cpu_s)


def cpu_time(pid: int) -> float:
    """Seconds. Raises `ProcessLookupError` when there is no such process."""
    return time.clock_gettime(_clock(pid))


@cache
def _clock(pid: int) -> int:
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise ProcessLookupError(pid)
    return clock.value


class Machine(NamedTuple):
    """CPU seconds of all cores together, since the machine started."""

    all_s: float
    busy_s: float
    """In programs and in the kernel on their behalf; interrupts are nobody's."""
    stolen_s: float
    """What its host gave to others."""


def machine_time() -> Machine:
    line = Path("/proc/stat").read_text().split("\n", 1)[0]
    seconds = [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in line.split()[1:9]]
    user_s, nice_s, system_s, *_, stolen_s = seconds
    return Machine(sum(seconds), user_s + nice_s + system_s, stolen_s)


def process_tree(pid: int) -> list[int]:
    """The process and everything it started that still runs."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name stands in parentheses and can hold anything.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    tree = [pid]
    for member in tree:
        tree += children.get(member, [])
    return tree

"""What a figure was taken under: machine, versions, load."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.contestants import LITELLM
from server.settings import PROJECT_ROOT

_PACKAGES = ("starlette", "sse-starlette", "uvicorn", "uvloop", "httptools", "httpx", "pydantic", "msgspec")


def conditions() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "versions": {name: metadata.version(name) for name in ("firstword", *_PACKAGES)}
        | {"litellm": litellm_version()},
    }


def litellm_version() -> str | None:
    """None where it is not installed."""
    folders = [str(folder) for folder in LITELLM.parent.parent.glob("lib/python*/site-packages")]
    found = list(metadata.distributions(name="litellm", path=folders))
    return found[0].version if found else None


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """The commit, marked when the tree differs from it; empty outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()

"""A server process from outside: what it holds, and who belongs to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateways import ServerProcess

READY_S = 100


@contextmanager
def simulated_server(
    folder: Path, chat_model_path: Path, knowledge: Path, **settings: object
) -> Iterator[ServerProcess]:
    """`firstword serve` with the simulated engine, ready; settings are `section__field`."""
    chosen: dict[str, object] = {
        "data_dir": folder / "var",
        "engine__kind": "simulated",
        "engine__model": chat_model_path,
        "engine__tool_parser": "",
        "engine__max_num_seqs": 1_024,
        "retrieval__embedder_kind": "hashing",
        "retrieval__min_score": -1,
        "retrieval__sample_knowledge": knowledge,
    }
    environment = {f"FIRSTWORD_{name.upper()}": str(value) for name, value in (chosen | settings).items()}
    server = ServerProcess([], environment)
    try:
        server.wait_ready(READY_S)
        yield server
    finally:
        server.stop()


def gauge(server: ServerProcess, name: str) -> float:
    metrics = httpx.get(server.url + "/metrics", trust_env=False).text
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    assert found, name
    return float(found[1])


def memory_bytes(pid: int) -> int:
    """Resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1_024


def cpu_s(pid: int) -> float:
    """Time that the process has had, in user space and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_cpu_s() -> float:
    """Time that all cores together have idled since the machine started."""
    fields = Path("/proc/stat").read_text().split()
    return int(fields[4]) / os.sysconf("SC_CLK_TCK")


def open_sockets(pid: int) -> int:
    n_open = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            n_open += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:
            continue
    return n_open


def session_processes(session: int) -> set[int]:
    """Every process of the session that a server process opened, whatever its parent or group is now."""
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            pid = int(folder.name)
            if os.getsid(pid) == session and not _is_zombie(folder):
                found.add(pid)
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"

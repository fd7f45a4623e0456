"""A server as a process of its own: started, waited for, put on its cores, held still, stopped."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from bench.cpu import process_tree
from server.settings import PROJECT_ROOT

BENCH_DIR = PROJECT_ROOT / "var" / "bench"
_STOP_S = 20.0
_OPEN_FILES = 8_192


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def raise_open_files() -> None:
    """Each stream is a descriptor on both sides; what is started from here inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def end_in_order() -> None:
    """SIGTERM unwinds as Ctrl-C does: servers that stand still would otherwise stay behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Server:
    """Its output goes to a file; leaving its `with` block ends everything it started."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        environment: Mapping[str, str] | None = None,
        ready_path: str = "/",
    ) -> None:
        self.name = name
        self.port = port
        self.log = BENCH_DIR / "logs" / f"{name}.log"
        self._ready_path = ready_path
        self.log.parent.mkdir(parents=True, exist_ok=True)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FIRSTWORD_")}
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env=clean | {"PYTHONPATH": str(Path(__file__).parent.parent)} | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        return process_tree(self._process.pid)

    def wait_ready(self, timeout_s: float) -> None:
        """Raises `RuntimeError` with the end of its output when it ends first, or is not ready in time."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"{self.name} ended with {self._process.returncode}:\n{self._last_lines()}"
                )
            if self._answers():
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} is not ready after {timeout_s} s:\n{self._last_lines()}")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", self._ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def pin(self, cores: Sequence[int]) -> None:
        """Put every thread of it on these cores."""
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task.name), cores)

    def hold(self) -> None:
        """Whoever is not measured stands still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process.poll() is None:
            self.go_on()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

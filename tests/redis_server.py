"""A real Redis server for tests: no port, a socket in a folder of its own, and gone with the test."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.settings import PROJECT_ROOT

BINARY = PROJECT_ROOT / "var" / "redis" / "bin" / "redis-server"
START_S = 30


class RedisServer:
    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self.socket = folder / "s"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        if not BINARY.exists():
            pytest.fail("the Redis server is missing; run `make redis`, or the tests through `make test`")
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [str(BINARY), "--port", "0", "--unixsocket", str(self.socket), "--save", "", *self._options],
            stdout=subprocess.DEVNULL,
            cwd=self.socket.parent,
        )
        deadline = time.monotonic() + START_S
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("the Redis server does not start")
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay open and are accepted by the kernel; nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """In a short path: those of sockets may not be long."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), options)
        try:
            server.start()
            yield server
        finally:
            server.kill()

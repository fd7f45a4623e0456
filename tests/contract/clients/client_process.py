"""One client program, kept running for all of its scenarios: importing some of them takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from matrix import Client

Seen = dict[str, Any]
"""See `Seen` in `python/protocol.py`; `took_s` is added here."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class ClientProcess:
    """Starts at once; `ask` waits for it. One ask at a time."""

    def __init__(self, client: Client) -> None:
        self.client = client
        environment = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
        self._process = subprocess.Popen(
            client.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self._complaints: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._version: str | None = None
        self._caller = ThreadPoolExecutor(1)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaints.append(line)

    @property
    def version(self) -> str:
        if self._version is None:
            self._version = self._read()["version"]
        return self._version

    def ask(self, scenario: str, **fields: Any) -> Seen:
        """Raises `RuntimeError` with the program's stderr when it ended."""
        assert self.version
        assert self._process.stdin is not None
        asked_at = time.perf_counter()
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"scenario": scenario, **fields}) + "\n")
            self._process.stdin.flush()
        return self._read() | {"took_s": time.perf_counter() - asked_at}

    def begin(self, scenario: str, **fields: Any) -> Future[Seen]:
        """`ask`, in a thread."""
        return self._caller.submit(self.ask, scenario, **fields)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(10)
            self._listener.join(10)
            raise RuntimeError(f"the program of {self.client.name} ended:\n{''.join(self._complaints)}")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        """It ends by itself when its input does; what does not is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._caller.shutdown()
        self._listener.join(10)
        self._process.stdout.close()
        self._process.stderr.close()


def start(clients: Sequence[Client]) -> dict[str, ClientProcess]:
    """Those that are installed, all at once."""
    return {client.name: ClientProcess(client) for client in clients if client.missing is None}

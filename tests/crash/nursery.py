"""The judge's side of the workers: started within milliseconds, talked to, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from crash.operations import Operation
from server.settings import PROJECT_ROOT

ANSWER_S = 60
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


class Refusal(Exception):
    """The worker answered with an error of ours."""


class Child:
    """A worker. What it was sent and has not answered is in flight."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self._pid = pid
        self._connection = connection

    def send(self, operation: Operation, ids: Mapping[str, str]) -> None:
        self._connection.send((operation, dict(ids)))

    def answer(self) -> Any:
        """Raises `Refusal`; `EOFError` when it is dead; `AssertionError` for any other error over there."""
        assert self._connection.poll(ANSWER_S), "no answer"
        try:
            verdict, told = self._connection.recv()
        except ConnectionResetError:
            raise EOFError from None
        if verdict == "refused":
            raise Refusal(told)
        assert verdict == "done", told
        return told

    def ask(self, operation: Operation, ids: Mapping[str, str]) -> Any:
        self.send(operation, ids)
        return self.answer()

    def kill(self) -> None:
        """What it had answered by then can still be read."""
        os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Returns when it is dead."""
        try:
            os.kill(self._pid, signal.SIGKILL)
            while self._connection.poll(ANSWER_S):
                self._connection.recv()
        except (EOFError, OSError):
            pass
        self._connection.close()


class Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control

    @contextmanager
    def child(self, folder: Path) -> Iterator[Child]:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [os.fsencode(folder)], [theirs.fileno()])
        child = Child(int(self._control.recv(32)), Connection(ours.detach()))
        try:
            yield child
        finally:
            child.close()


@contextmanager
def nursery(preload: Path | None = None) -> Iterator[Nursery]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = os.environ | _ONE_THREAD | {"PYTHONPATH": str(PROJECT_ROOT / "tests")}
    if preload:
        environment["LD_PRELOAD"] = str(preload)
    with ours, theirs:
        program = subprocess.Popen(
            [sys.executable, "-m", "crash.program", str(theirs.fileno())],
            cwd=PROJECT_ROOT,
            env=environment,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        try:
            yield Nursery(ours)
        finally:
            ours.close()
            program.wait(ANSWER_S)

"""The program that is killed: forks a worker for each socket that it is handed, all with everything imported.

A worker does one operation after the other and says so when each has returned, and not before.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import faiss  # noqa: F401

from crash.worker import Refused, Worker
from retrieval.errors import RetrievalError


def serve(folder: Path, judge: Connection) -> None:
    """Until the judge has gone."""
    worker = Worker(folder)
    answer: tuple[str, Any]
    while True:
        try:
            operation, ids = judge.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = ("done", worker.do(operation, ids))
        except (RetrievalError, Refused) as error:
            answer = ("refused", f"{type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001 - whatever it is, the judge is told
            answer = ("broken", traceback.format_exc())
        judge.send(answer)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    logging.disable(logging.ERROR)
    gc.freeze()
    while True:
        folder, descriptors, _, _ = socket.recv_fds(control, 4_096, 1)
        if not folder:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            try:
                serve(Path(folder.decode()), Connection(descriptors[0]))
            finally:
                # Nothing of the parent's is cleaned up here.
                os._exit(0)
        os.close(descriptors[0])
        control.send(str(pid).encode())


if __name__ == "__main__":
    main()

"""The embedding process: `python -m retrieval.embed.worker SPEC PARENT`, frames on its standard input and output."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from types import FrameType

import numpy as np

from retrieval.embed.frames import FAILED, READY, TEXTS, VECTORS, Broken, receive, send
from retrieval.embed.spec import EmbedderSpec, open_embedder
from retrieval.errors import RetrievalError
from retrieval.types import Embedder

_LEAST_URGENT = 19
_PR_SET_PDEATHSIG = 1


def main(spec: str, parent: str) -> int:
    die_with(int(parent))
    os.nice(_LEAST_URGENT)
    # What a library prints must not come between the frames.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        try:
            embedder = open_embedder(EmbedderSpec(**json.loads(spec)))
        except RetrievalError as error:
            send(output, FAILED, str(error).encode(errors="replace"))
            return 1
        ready = {"identity": embedder.identity, "dim": embedder.dim}
        send(output, READY, json.dumps(ready).encode())
        while True:
            answer(embedder, output)
    except Broken:
        # The owner is gone: there is nobody to work for.
        return 0


def answer(embedder: Embedder, output: int) -> None:
    kind, content = receive(sys.stdin.fileno())
    if kind != TEXTS:
        raise Broken(f"{kind!r} where texts were expected")
    try:
        vectors = np.ascontiguousarray(embedder.embed(json.loads(content)), dtype=np.float32)
    except Exception as error:  # noqa: BLE001 - the owner's to judge; this process goes on
        send(output, FAILED, f"{type(error).__name__}: {error}".encode(errors="replace"))
    else:
        send(output, VECTORS, vectors.tobytes())


def die_with(parent: int) -> None:
    """End when the process `parent` has ended. Linux only; elsewhere the closed pipe says so, one batch later.

    The kernel's signal comes for each *thread* of the parent that started this process and ends (prctl(2)), so
    the parent is looked for before it is obeyed.
    """
    if not sys.platform.startswith("linux"):
        return

    def look(_signal: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:
            os._exit(0)

    signal.signal(signal.SIGUSR2, look)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR2)
    look(0, None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

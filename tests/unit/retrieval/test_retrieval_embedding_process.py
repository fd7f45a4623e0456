"""The embedding process: it may die, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import retrieval
from retrieval.embed import process as embedding_process
from retrieval.embed.frames import VECTORS, Broken, receive, send
from retrieval.embed.process import EmbeddingFailed, EmbeddingProcess
from retrieval.embed.spec import EmbedderSpec, HashingEmbedder
from retrieval.errors import EmbedderMismatch, RetrievalError

HASHING = HashingEmbedder(384)
SPEC = EmbedderSpec("", "hashing")
TEXTS = [f"{'word ' * (n % 7)}number {n}" for n in range(10)]
PATIENCE_S = 30
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def process() -> Iterator[EmbeddingProcess]:
    process = EmbeddingProcess(SPEC, HASHING.identity, HASHING.dim)
    yield process
    process.close()


@linux
def test_it_starts_when_it_is_needed_and_yields_to_everything(process: EmbeddingProcess):
    assert process.pid is None
    np.testing.assert_array_equal(process.embed(TEXTS), HASHING.embed(TEXTS))
    assert process.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    # It outlives the thread that started it, though the kernel reports that thread's death.
    first = process.pid
    process.stop()
    wait_until(lambda: not is_running(first))
    thread = threading.Thread(target=process.embed, args=(TEXTS,))
    thread.start()
    thread.join()
    second = process.pid
    np.testing.assert_array_equal(process.embed(TEXTS), HASHING.embed(TEXTS))
    assert process.pid == second != first


def test_a_process_that_died_is_replaced(process: EmbeddingProcess):
    process.embed(TEXTS)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    np.testing.assert_array_equal(process.embed(TEXTS), HASHING.embed(TEXTS))


def test_a_batch_that_kills_it_twice_fails(monkeypatch: pytest.MonkeyPatch, process: EmbeddingProcess):
    monkeypatch.setattr(embedding_process.sys, "executable", "/bin/false")
    with pytest.raises(EmbeddingFailed, match="2 times"):
        process.embed(TEXTS)
    monkeypatch.undo()
    assert len(process.embed(TEXTS)) == len(TEXTS)


def test_one_that_does_not_answer_in_time_is_replaced(process: EmbeddingProcess):
    process.embed(TEXTS)
    process._timeout_s = 0.2
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    np.testing.assert_array_equal(process.embed(TEXTS[:4]), HASHING.embed(TEXTS[:4]))


def test_another_model_is_refused():
    process = EmbeddingProcess(SPEC, "another@sha256:0", HASHING.dim)
    with pytest.raises(EmbedderMismatch, match="hashing-384"):
        process.embed(TEXTS)
    assert process.pid is None
    process.close()


def test_a_model_that_is_missing_is_told_by_its_folder(tmp_path: Path):
    process = EmbeddingProcess(EmbedderSpec(str(tmp_path / "gone"), "onnx"), "x", 8)
    with pytest.raises(EmbeddingFailed, match="gone: no embedding model there"):
        process.embed(TEXTS)
    process.close()


def test_it_pauses_before_each_batch():
    pauses: list[None] = []
    process = EmbeddingProcess(
        SPEC, HASHING.identity, HASHING.dim, batch_texts=3, pause=lambda: pauses.append(None)
    )
    process.embed(TEXTS)
    assert len(pauses) == 4
    process.close()


def test_closing_leaves_nothing_even_in_the_middle_of_a_batch():
    descriptors = len(os.listdir("/dev/fd"))
    process = EmbeddingProcess(SPEC, HASHING.identity, HASHING.dim)
    process.embed(TEXTS)
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    raised: list[RetrievalError] = []

    def embed() -> None:
        try:
            process.embed(TEXTS)
        except RetrievalError as error:
            raised.append(error)

    thread = threading.Thread(target=embed)
    thread.start()
    wait_until(process._lock.locked)
    process.close()
    thread.join(PATIENCE_S)
    assert len(raised) == 1
    assert process.pid is None
    assert not is_running(pid)
    with pytest.raises(EmbeddingFailed, match="closed"):
        process.embed(TEXTS)
    assert len(os.listdir("/dev/fd")) == descriptors


@linux
def test_it_ends_with_a_server_that_was_killed():
    script = (
        "import time\n"
        "from retrieval.embed.spec import EmbedderSpec\n"
        "from retrieval.embed.process import EmbeddingProcess\n"
        "process = EmbeddingProcess(EmbedderSpec('', 'hashing'), 'hashing-384', 384)\n"
        "process.embed(['words'])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(retrieval.__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
    wait_until(lambda: not is_running(pid))


def test_frames_arrive_whole_or_not_at_all():
    reading, writing = os.pipe()
    try:
        send(writing, VECTORS, b"content")
        assert receive(reading, 1.0) == (VECTORS, b"content")
        with pytest.raises(Broken, match="in time"):
            receive(reading, 0.01)
        os.write(writing, b"V\xff\xff\xff\xff")
        with pytest.raises(Broken, match="announced"):
            receive(reading, 1.0)
        os.write(writing, b"V\0\0\0\x09half")
        os.close(writing)
        writing = -1
        with pytest.raises(Broken, match="closed"):
            receive(reading, 1.0)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)

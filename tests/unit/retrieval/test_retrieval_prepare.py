"""Documents in worker processes: what goes wrong there stays there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sample_documents import docx, epub, pdf, pptx, xlsx
from tokenizers import Tokenizer, models, pre_tokenizers

from retrieval.errors import DocumentTooLarge, ParsingStopped, UnreadableDocument, UnsupportedDocument
from retrieval.ingest.preparer import ParseLimits, Prepared, Preparer
from retrieval.types import Chunk

# Beautiful Soup takes time that grows with the square of this.
SLOW = b"<b>" * 1_000_000


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token for each word or run of signs."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(file))
    return file


@pytest.fixture(scope="module")
def preparer(tokenizer_file: Path) -> Iterator[Preparer]:
    with contextlib.closing(Preparer(tokenizer_file, ParseLimits(max_seconds=60))) as preparer:
        yield preparer


def prepared(preparer: Preparer, data: bytes, name: str) -> Prepared:
    return preparer.prepare(data, name, 16, 4)


def works(preparer: Preparer) -> bool:
    return prepared(preparer, b"# Hi\n\nthere", "a.md") == Prepared("Hi", (Chunk(0, ("Hi",), "there", 1),))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def becomes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_each_kind_is_parsed_and_cut_in_one_process(preparer: Preparer):
    table = b"k,v\n" + b"".join(b"row,%d\n" % n for n in range(40))
    assert works(preparer)
    (pid,) = preparer.worker_pids()
    for data, name in [
        (pdf([["one"], ["two"]]), "a.pdf"),
        (docx(), "a.docx"),
        (pptx(), "a.pptx"),
        (xlsx({"s": [["a", "b"], [1, 2]]}), "a.xlsx"),
        (epub(["<p>text</p>"]), "a.epub"),
        (table, "a.csv"),
    ]:
        found = prepared(preparer, data, name)
        assert [chunk.ordinal for chunk in found.chunks] == list(range(len(found.chunks)))
        assert all(0 < chunk.n_tokens <= 16 for chunk in found.chunks)
    assert all(chunk.text.startswith("k | v\nrow | ") for chunk in found.chunks)
    assert [chunk.page for chunk in prepared(preparer, pdf([["one"], ["two"]]), "a.pdf").chunks] == [1, 2]
    assert preparer.worker_pids() == [pid]


def test_errors_of_documents_come_across_and_keep_the_process(preparer: Preparer):
    assert works(preparer)
    pids = preparer.worker_pids()
    with pytest.raises(UnreadableDocument, match=r"^dir/a\.md: is empty"):
        prepared(preparer, b"", "dir/a.md")
    with pytest.raises(UnsupportedDocument, match=r"^a\.docx: looks like a PDF"):
        prepared(preparer, pdf([["x"]]), "a.docx")
    with pytest.raises(UnsupportedDocument, match=r"^a\.exe: no parser"):
        prepared(preparer, b"x", "a.exe")
    with pytest.raises(ValueError, match="change the chunk settings"):
        preparer.prepare(b"x", "a.txt", 2, 0)
    assert works(preparer)
    assert preparer.worker_pids() == pids


def test_the_worker_has_what_it_needs_and_no_more(preparer: Preparer, tmp_path: Path):
    with (tmp_path / "inherited").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert works(preparer)
        (pid,) = preparer.worker_pids()
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"HOME=" not in environment
        assert os.getpriority(os.PRIO_PROCESS, pid) >= min(os.getpriority(os.PRIO_PROCESS, 0) + 15, 19)
        limits = {
            line[:25].strip(): line[26:46].strip()
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
        }
        assert limits["Max file size"] == limits["Max core file size"] == "0"
        assert limits["Max address space"] == str(ParseLimits().max_memory_bytes)
        assert limits["Max cpu time"] != "unlimited"
        loaded = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in loaded
        assert os.getpgid(pid) == pid


def test_a_worker_killed_at_its_work_costs_that_document_only(preparer: Preparer):
    assert works(preparer)
    (pid,) = preparer.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(
        ParsingStopped, match=r"^a\.md: reading it was stopped \(its process was ended by SIGKILL\)"
    ):
        prepared(preparer, b"x" * 10_000_000, "a.md")
    killer.join()
    assert works(preparer)
    assert preparer.worker_pids() != [pid]


def test_a_worker_that_died_in_between_costs_nothing(preparer: Preparer):
    assert works(preparer)
    (pid,) = preparer.worker_pids()
    os.kill(pid, signal.SIGKILL)
    assert becomes(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    assert works(preparer)


def test_what_takes_too_long_is_stopped(tokenizer_file: Path):
    with contextlib.closing(Preparer(tokenizer_file, ParseLimits(max_seconds=0.7))) as preparer:
        assert works(preparer)
        (busy,) = preparer.worker_pids()
        with pytest.raises(ParsingStopped, match=r"^slow\.html: .*longer than 0\.7 s"):
            prepared(preparer, SLOW, "slow.html")
        assert not is_running(busy)
        assert works(preparer)
        (hung,) = preparer.worker_pids()
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(ParsingStopped, match=r"longer than 0\.7 s"):
            prepared(preparer, b"x" * 10_000_000, "a.txt")
        assert not is_running(hung)
        assert works(preparer)


def test_what_takes_too_much_memory_is_stopped(tokenizer_file: Path):
    limits = ParseLimits(max_memory_bytes=256 * 1024 * 1024, max_seconds=60)
    with contextlib.closing(Preparer(tokenizer_file, limits)) as preparer:
        assert works(preparer)
        with pytest.raises(ParsingStopped, match=r"^a\.json: .*more memory than"):
            prepared(preparer, b"[" + b"{}," * 2_000_000 + b"1]", "a.json")
        assert works(preparer)


def test_more_chunks_than_the_limit_are_refused(tokenizer_file: Path):
    with contextlib.closing(Preparer(tokenizer_file, ParseLimits(max_chunks=3, max_bytes=1000))) as preparer:
        with pytest.raises(DocumentTooLarge, match=r"^a\.txt: comes to more than 3 chunks"):
            prepared(preparer, b"word " * 100, "a.txt")
        with pytest.raises(DocumentTooLarge, match=r"^a\.txt: 1001 bytes, above the limit of 1000"):
            prepared(preparer, b"x" * 1001, "a.txt")
        assert works(preparer)


def test_many_threads_share_the_workers(tokenizer_file: Path):
    with contextlib.closing(Preparer(tokenizer_file, n_workers=2)) as preparer:
        failed: list[int] = []

        def use(number: int) -> None:
            for at in range(10):
                word = f"w{number}x{at}"
                if [c.text for c in prepared(preparer, word.encode(), "a.txt").chunks] != [word]:
                    failed.append(number)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        # They outlive the threads that asked.
        assert 1 <= len(preparer.worker_pids()) <= 2
        assert works(preparer)


def test_close_leaves_no_process_thread_or_descriptor(tokenizer_file: Path):
    before, threads = descriptors(), threading.active_count()
    preparer = Preparer(tokenizer_file, n_workers=2)
    assert preparer.worker_pids() == []
    assert works(preparer)
    (pid,) = preparer.worker_pids()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            prepared(preparer, SLOW, "slow.html")
        except ParsingStopped as error:
            raised.append(error)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    time.sleep(0.2)
    preparer.close()
    for thread in asking:
        thread.join()
    assert len(raised) == 4
    assert not is_running(pid)
    assert (descriptors(), threading.active_count()) == (before, threads)
    preparer.close()
    with pytest.raises(ParsingStopped, match="the server is stopping"):
        works(preparer)


def test_workers_go_with_a_server_that_is_killed(tokenizer_file: Path):
    program = (
        "import sys, pathlib, threading; from retrieval.ingest.preparer import Preparer\n"
        "p = Preparer(pathlib.Path(sys.argv[1])); p.prepare(b'x', 'a.txt', 16, 0)\n"
        "threading.Timer(0.3, lambda: print(*p.worker_pids(), flush=True)).start()\n"
        "p.prepare(b'<b>' * 1_000_000, 'slow.html', 16, 0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tokenizer_file)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as server:
        assert server.stdout
        pid = int(server.stdout.readline())
        assert is_running(pid)
        server.kill()
    assert becomes(lambda: not is_running(pid) or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_worker_that_cannot_start_says_why(tmp_path: Path, content: str | None):
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with (
        contextlib.closing(Preparer(file)) as preparer,
        pytest.raises(RuntimeError, match=r"did not start: .*tokenizer\.json"),
    ):
        works(preparer)
    assert preparer.worker_pids() == []


def test_a_worker_of_a_large_process_stays_for_the_next_document(tokenizer_file: Path):
    ballast = bytearray(200 << 20)
    limits = ParseLimits(max_memory_bytes=384 << 20)
    with contextlib.closing(Preparer(tokenizer_file, limits)) as preparer:
        assert works(preparer)
        (pid,) = preparer.worker_pids()
        assert works(preparer)
        assert preparer.worker_pids() == [pid]
    assert len(ballast) == 200 << 20

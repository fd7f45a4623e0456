"""Attached files become documents one after the other, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from retrieval.embed.hashing import HashingEmbedder
from retrieval.errors import EmbedderMismatch, ParsingStopped, RetrievalError, StoreFull
from retrieval.file_types import Attachment, Page, ToAttach
from retrieval.ingest.intake import DirectPreparer, Intake, Prepared
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import Embedder, Vectors
from server import ingestion as module
from server.ingestion import Ingestion, Throttle

pytestmark = pytest.mark.anyio
EMBEDDER = HashingEmbedder(32)
ME = "me"


class Words:
    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        offsets, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            offsets.append((at, at + len(word)))
            at += len(word)
        return offsets


class Held(HashingEmbedder):
    """Embeds when it is let."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__(dim)
        self.asked = threading.Event()
        self.let = threading.Event()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.set()
        assert self.let.wait(30)
        return super().embed(texts)


class Failing(DirectPreparer):
    """For files that tell how they fail."""

    def prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        if filename.startswith("hangs"):
            raise ParsingStopped(f"{filename}: it took longer than 1 s; split it")
        if filename.startswith("bug"):
            raise ValueError("an assumption does not hold")
        return super().prepare(data, filename, chunk_tokens, overlap_tokens)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    store.claim_embedder(EMBEDDER.identity, EMBEDDER.dim)
    yield store
    store.close()


@asynccontextmanager
async def ingesting(
    store: SqliteStore,
    embedder: Embedder = EMBEDDER,
    free: Callable[[], bool] = lambda: True,
    longest_s: float = 1.0,
) -> AsyncGenerator[Ingestion, None]:
    ingestion = Ingestion(
        store.files,
        Intake(Failing(Words()), embedder, store),
        chunk_tokens=32,
        overlap_tokens=8,
        throttle=Throttle(free, longest_s),
    )
    ingestion.start()
    try:
        yield ingestion
    finally:
        await ingestion.close()


def attach(store: SqliteStore, store_id: str, name: str, data: bytes | str, **options: Any) -> str:
    data = data.encode() if isinstance(data, str) else data
    file_id = store.files.add_file(ME, name, "assistants", data).file_id
    store.files.attach(ME, store_id, [ToAttach(file_id, **options)])
    return file_id


def new_store(store: SqliteStore) -> str:
    return store.files.create_store(ME, "papers").store_id


def states(store: SqliteStore, store_id: str) -> dict[str, Attachment]:
    found, _ = store.files.attachments(ME, store_id, Page(100))
    return {attachment.filename: attachment for attachment in found}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def settled(store: SqliteStore) -> None:
    await until(lambda: not store.files.pending(1))


async def test_what_was_attached_before_the_start_is_done(store: SqliteStore) -> None:
    store_id = new_store(store)
    attach(store, store_id, "one.md", "# One\n\nfirst words", attributes={"year": 2024})
    attach(store, store_id, "two.txt", "second words")
    async with ingesting(store) as ingestion:
        await settled(store)
        assert (ingestion.completed, ingestion.failed) == (2, 0)
    found = states(store, store_id)
    assert {name: one.status for name, one in found.items()} == {
        "one.md": "completed",
        "two.txt": "completed",
    }
    (one, _) = sorted(store.documents(store_id), key=lambda document: document.filename)
    assert (one.title, one.file_id, one.attributes) == ("One", found["one.md"].file_id, {"year": 2024})
    assert found["one.md"].document_id == one.document_id
    assert found["one.md"].n_chunks == one.n_chunks == 1


async def test_what_is_attached_later_is_done_when_it_is_woken(store: SqliteStore) -> None:
    store_id = new_store(store)
    async with ingesting(store) as ingestion:
        for n in range(3):
            attach(store, store_id, f"{n}.txt", f"words {n}", chunk_tokens=16, overlap_tokens=0)
            ingestion.wake()
            await settled(store)
    assert len(store.documents(store_id)) == 3


async def test_a_bad_file_fails_with_code_and_reason_and_the_rest_goes_on(store: SqliteStore) -> None:
    store_id = new_store(store)
    attach(store, store_id, "binary.md", b"\0\1\2")
    attach(store, store_id, "image.png", b"\x89PNG\r\n\x1a\n")
    attach(store, store_id, "empty.txt", b"")
    attach(store, store_id, "hangs.md", "text")
    attach(store, store_id, "bug.md", "text")
    attach(store, store_id, "good.md", "good words")
    async with ingesting(store) as ingestion:
        await settled(store)
        assert (ingestion.completed, ingestion.failed) == (1, 5)
    found = states(store, store_id)
    assert {name: (one.status, one.error_code) for name, one in found.items()} == {
        "binary.md": ("failed", "invalid_file"),
        "image.png": ("failed", "unsupported_file"),
        "empty.txt": ("failed", "invalid_file"),
        "hangs.md": ("failed", "invalid_file"),
        "bug.md": ("failed", "server_error"),
        "good.md": ("completed", ""),
    }
    assert all(name in one.error for name, one in found.items() if one.status == "failed")
    assert len(store.documents(store_id)) == 1


@pytest.mark.parametrize("away", ["detach", "delete_file", "delete_store", "cancel"])
async def test_what_goes_while_it_is_ingested_leaves_nothing(store: SqliteStore, away: str) -> None:
    store_id, embedder = new_store(store), Held()
    file_id = store.files.add_file(ME, "one.md", "assistants", b"some words").file_id
    _, batch_id = store.files.attach(ME, store_id, [ToAttach(file_id)], batch=True)
    async with ingesting(store, embedder) as ingestion:
        await asyncio.to_thread(embedder.asked.wait, 30)
        assert ingestion.running == 1
        assert ingestion.progress(store_id, file_id) == (0, 1)
        match away:
            case "detach":
                store.files.detach(ME, store_id, file_id)
            case "delete_file":
                store.files.delete_file(ME, file_id)
            case "delete_store":
                store.files.delete_store(ME, store_id)
            case "cancel":
                store.files.cancel_batch(ME, store_id, batch_id)
        embedder.let.set()
        await until(lambda: not ingestion.running)
        assert store.documents() == []
        assert (ingestion.completed, ingestion.failed) == (0, 0)
        assert ingestion.progress(store_id, file_id) is None
    if away == "cancel":
        assert states(store, store_id)["one.md"].status == "cancelled"


async def test_what_is_attached_again_while_it_is_ingested_is_ingested_as_it_is_wanted_now(
    store: SqliteStore,
) -> None:
    store_id, embedder = new_store(store), Held()
    text = " ".join(f"word{n}" for n in range(32))
    file_id = attach(store, store_id, "one.txt", text)
    async with ingesting(store, embedder):
        await asyncio.to_thread(embedder.asked.wait, 30)
        again = ToAttach(file_id, attributes={"a": 1}, chunk_tokens=16, overlap_tokens=0)
        store.files.attach(ME, store_id, [again])
        embedder.let.set()
        await settled(store)
    (document,) = store.documents(store_id)
    assert (document.n_chunks, document.attributes) == (2, {"a": 1})


async def test_a_document_under_way_at_the_end_is_begun_anew_at_the_next_start(store: SqliteStore) -> None:
    """It has not failed."""
    store_id = new_store(store)
    file_id = attach(store, store_id, "one.md", "some words")

    class Interrupted(Held):
        def embed(self, texts: Sequence[str]) -> Vectors:
            super().embed(texts)
            raise RetrievalError("the embedding process was closed: the server is shutting down")

    embedder = Interrupted()
    async with ingesting(store, embedder):
        await asyncio.to_thread(embedder.asked.wait, 30)
        asyncio.get_running_loop().call_later(0.05, embedder.let.set)
    assert store.files.attachment(ME, store_id, file_id).status == "in_progress"
    async with ingesting(store):
        await settled(store)
    assert store.files.attachment(ME, store_id, file_id).status == "completed"


async def test_close_waits_for_the_thread_that_uses_the_store(store: SqliteStore) -> None:
    attach(store, new_store(store), "one.md", "some words")
    embedder = Held()
    ingestion = Ingestion(
        store.files,
        Intake(DirectPreparer(Words()), embedder, store),
        chunk_tokens=32,
        overlap_tokens=8,
        throttle=Throttle(lambda: True, 1.0),
        stop_preparing=embedder.let.set,
    )
    ingestion.start()
    await asyncio.to_thread(embedder.asked.wait, 30)
    await ingestion.close()
    assert ingestion.running == 0
    assert ingestion._at_work is not None
    assert ingestion._at_work.done()


async def test_another_model_takes_over_what_the_old_one_was_at(store: SqliteStore) -> None:
    """Of the same dimensions: nothing but the identity tells their vectors apart."""

    class Backwards(HashingEmbedder):
        @property
        def identity(self) -> str:
            return "backwards"

        def embed(self, texts: Sequence[str]) -> Vectors:
            vectors: Vectors = -super().embed(texts)
            return vectors

    store_id, old, new = new_store(store), Held(), Backwards(32)
    attach(store, store_id, "one.md", "some words")
    async with ingesting(store, old) as ingestion:
        await asyncio.to_thread(old.asked.wait, 30)
        other = SqliteStore(store.connections.path)
        assert other.next_vectors.begin(new.identity, new.dim)
        assert other.next_vectors.finish(new.identity, new.dim)
        other.close()
        ingestion.embed_with(new)
        store.claim_embedder(new.identity, new.dim)
        old.let.set()
        await settled(store)
        assert (ingestion.completed, ingestion.failed) == (1, 0)
    with store.snapshot() as snapshot:
        (rows,) = snapshot.rows(10)
    assert (rows.vectors == new.embed(rows.texts)).all()


@pytest.mark.parametrize("error", [StoreFull, EmbedderMismatch, OSError])
async def test_what_is_not_the_files_fault_is_tried_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.02)
    store_id = new_store(store)
    attach(store, store_id, "one.md", "some words")
    finish, tries = store.files.finish, list[str]()

    def failing(attachment: Attachment, *parts: Any) -> bool:
        tries.append(attachment.filename)
        if len(tries) < 3:
            raise error("store.db: not now; try again")
        return finish(attachment, *parts)

    monkeypatch.setattr(store.files, "finish", failing)
    async with ingesting(store) as ingestion:
        await settled(store)
        assert (ingestion.completed, ingestion.failed, len(tries)) == (1, 0, 3)


async def test_an_expired_store_is_taken_away_at_the_start(store: SqliteStore) -> None:
    store_id = store.files.create_store(ME, "short", expires_after_days=1).store_id
    with store.connections.transaction() as db:
        db.execute("UPDATE vector_stores SET last_active_at = 0 WHERE store_id = ?", (store_id,))
    async with ingesting(store):
        await until(lambda: store_id not in {one.store_id for one in store.files.stores(ME, Page(100))[0]})


def test_the_throttle_holds_up_while_turns_wait_and_no_longer() -> None:
    left = [3]

    def engine_is_free() -> bool:
        left[0] -= 1
        return left[0] < 0

    throttle = Throttle(engine_is_free, longest_s=60)
    throttle()
    assert left == [-1]
    assert throttle.paused_s > 0


def test_an_ingest_goes_on_after_the_longest_pause_and_at_the_end() -> None:
    asked = 0

    def engine_is_free() -> bool:
        nonlocal asked
        asked += 1
        return False

    throttle = Throttle(engine_is_free, longest_s=0.05)
    throttle()
    assert asked > 1
    assert throttle.paused_s >= 0.05
    closing = Throttle(engine_is_free, longest_s=60)
    threading.Timer(0.02, closing.closed.set).start()
    closing()
    assert closing.closed.is_set()

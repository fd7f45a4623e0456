"""Many turns, one thread that computes vectors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from retrieval.embed.queries import QueryEmbedder
from retrieval.embed.spec import HashingEmbedder
from retrieval.errors import RetrievalError
from retrieval.types import Vectors

pytestmark = pytest.mark.anyio
PATIENCE_S = 30


class GatedEmbedder(HashingEmbedder):
    """Notes what it is asked for; waits at the gate while that is shut."""

    def __init__(self) -> None:
        super().__init__(32)
        self.calls: list[list[str]] = []
        self.began = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.began.set()
        assert self.gate.wait(PATIENCE_S)
        if "broken" in texts:
            raise ValueError("broken")
        return super().embed(texts)

    async def shut_with(self, queries: QueryEmbedder) -> asyncio.Task[Vectors]:
        """A text is being computed, and will be until the gate opens."""
        self.gate.clear()
        self.began.clear()
        task = asyncio.create_task(queries.embed("first"))
        await asyncio.to_thread(self.began.wait, PATIENCE_S)
        return task


@pytest.fixture
def embedder() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
def make(embedder: GatedEmbedder) -> Iterator[Callable[..., QueryEmbedder]]:
    made = []

    def make(**options: int) -> QueryEmbedder:
        made.append(QueryEmbedder(embedder, **options))
        return made[-1]

    yield make
    embedder.gate.set()
    for queries in made:
        queries.close()


async def waiting(queries: QueryEmbedder, *texts: str) -> list[asyncio.Task[Vectors]]:
    """Tasks that have put their text into the line."""
    tasks = [asyncio.create_task(queries.embed(text)) for text in texts]
    await asyncio.sleep(0)
    return tasks


async def test_vectors_are_the_embedders_in_the_order_asked(embedder, make):
    queries = make(batch_tokens=100)
    texts = ["a long text of several words", "short", "", "short"]
    np.testing.assert_array_equal(await queries.embed_all(texts), HashingEmbedder(32).embed(texts))
    assert (await queries.embed("short")).shape == (1, 32)
    assert (await queries.embed_all([])).shape == (0, 32)
    assert (queries.identity, queries.dim) == (embedder.identity, 32)


async def test_a_text_is_computed_once_and_no_caller_can_spoil_it(embedder, make):
    queries = make()
    first = await queries.embed("again")
    first[:] = 7
    np.testing.assert_array_equal(await queries.embed("again"), HashingEmbedder(32).embed(["again"]))
    assert embedder.calls == [["again"]]


async def test_the_least_recently_used_vector_is_forgotten(embedder, make):
    queries = make(cache_entries=2)
    for text in ("one", "two", "one", "three", "one", "two"):
        await queries.embed(text)
    assert [text for (text,) in embedder.calls] == ["one", "two", "three", "two"]


async def test_texts_that_wait_together_share_batches_within_the_budget(embedder, make):
    queries = make(batch_tokens=30)
    first = await embedder.shut_with(queries)
    texts = ["x" * 80, "a", "b", "c" * 80, "a"]
    tasks = await waiting(queries, *texts)
    embedder.gate.set()
    vectors = np.concatenate(await asyncio.gather(*tasks))
    await first
    np.testing.assert_array_equal(vectors, HashingEmbedder(32).embed(texts))
    # 22 tokens each: two long texts do not fit into 30, and the short ones are not padded to their length.
    assert [sorted(call) for call in embedder.calls] == [["first"], ["a", "b"], ["x" * 80], ["c" * 80]]


async def test_without_a_budget_texts_go_one_by_one(embedder, make):
    queries = make()
    first = await embedder.shut_with(queries)
    tasks = await waiting(queries, "aa", "b")
    embedder.gate.set()
    await asyncio.gather(first, *tasks)
    assert embedder.calls == [["first"], ["b"], ["aa"]]


async def test_a_cancelled_caller_takes_its_text_out_of_the_line(embedder, make):
    queries = make()
    first = await embedder.shut_with(queries)
    gone, stays = await waiting(queries, "gone", "stays")
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    embedder.gate.set()
    await asyncio.gather(first, stays)
    assert embedder.calls == [["first"], ["stays"]]


async def test_an_error_reaches_its_callers_and_nobody_else(embedder, make):
    queries = make()
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await queries.embed_all(["fine", "broken"])
    assert (await queries.embed("fine")).shape == (1, 32)
    assert embedder.calls.count(["broken"]) == 2, "errors are not kept"


async def test_closing_answers_whoever_waits_and_ends_the_thread(embedder, make):
    before = set(threading.enumerate())
    queries = make()
    first = await embedder.shut_with(queries)
    (late,) = await waiting(queries, "late")
    closing = asyncio.create_task(asyncio.to_thread(queries.close))
    while not queries._closed:  # the gate opens only when the thread has been told
        await asyncio.sleep(0.001)
    embedder.gate.set()
    await first
    with pytest.raises(RetrievalError, match="closed"):
        await late
    await closing
    queries.close()
    with pytest.raises(RetrievalError, match="closed"):
        await queries.embed("too late")
    assert embedder.calls == [["first"]]
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "query-embedder"]


def test_a_loop_that_was_closed_meanwhile_is_no_error(embedder, make):
    queries = make()

    async def leave() -> None:
        (await embedder.shut_with(queries)).cancel()

    asyncio.run(leave())
    embedder.gate.set()
    assert asyncio.run(queries.embed("next")).shape == (1, 32)

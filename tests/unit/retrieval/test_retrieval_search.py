from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from serving_made import DIM, EMBEDDER, CountingEmbedder, found, open_store, put, retriever_of, texts

import retrieval
from retrieval.embed.hashing import HashingEmbedder
from retrieval.filters import Comparison
from retrieval.search.retriever import Mode, SearchOptions
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import Query, Scope, Vectors

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = open_store(tmp_path / "store.db")
    yield store
    store.close()


async def test_an_empty_store_gives_no_passages(store: SqliteStore) -> None:
    async with retriever_of(store) as retriever:
        assert await texts(retriever, "anything") == []


async def test_the_best_passage_comes_first_and_weak_ones_are_left_out(store: SqliteStore) -> None:
    put(store, "a", "returns within 45 days", "open at nine", "returns are free")
    async with retriever_of(store) as retriever:
        passages = await found(retriever, "returns within 45 days")
        assert [passage.text for passage in passages][:2] == ["returns within 45 days", "returns are free"]
        floor = passages[1].score
        strong = await found(retriever, "returns within 45 days", min_score=floor + 0.01)
        assert [passage.text for passage in strong] == ["returns within 45 days"]
        assert await texts(retriever, "returns within 45 days", min_score=1.01) == []
        assert await texts(retriever, "returns within 45 days", top_k=1) == ["returns within 45 days"]
        assert len(await texts(retriever, "returns", top_k=99)) == 3


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_every_hit_has_its_cosine_and_scores_descend(store: SqliteStore, mode: Mode) -> None:
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(40)]
    for source in range(30):
        put(store, str(source), *(" ".join(rng.choice(words, 8)) for _ in range(4)))
    async with retriever_of(store, SearchOptions(mode=mode, candidates=6)) as retriever:
        for _ in range(10):
            question = " ".join(rng.choice(words, 3))
            passages = await found(retriever, question, top_k=50)
            (vector,) = EMBEDDER.embed([question])
            assert passages
            scores = [passage.score for passage in passages]
            assert scores == sorted(scores, reverse=True)
            for passage in passages:
                (own,) = EMBEDDER.embed([passage.text])
                assert passage.dense == pytest.approx(float(own @ vector), abs=1e-5)
                if mode == "lexical":
                    assert passage.lexical is not None


async def test_a_text_that_is_there_twice_is_told_once(store: SqliteStore) -> None:
    for source in range(10):
        put(store, str(source), "the same words")
    put(store, "last", "the other words")
    async with retriever_of(store) as retriever:
        assert await texts(retriever, "same words", top_k=3) == ["the same words", "the other words"]


async def test_stores_and_filters_bound_what_is_found(store: SqliteStore) -> None:
    mine = store.files.create_store("me", "mine").store_id
    theirs = store.files.create_store("you", "theirs").store_id
    put(store, "a", "words of mine", store_id=mine, attributes={"year": 2024})
    document_id = put(store, "b", "older words of mine", store_id=mine, attributes={"year": 2020})
    put(store, "c", "words of theirs", store_id=theirs, attributes={"year": 2024})
    lately = Scope((mine,), Comparison("gt", "year", 2022))
    async with retriever_of(store) as retriever:
        assert set(await texts(retriever, "words", Scope((mine,)))) == {
            "words of mine",
            "older words of mine",
        }
        assert await texts(retriever, "words", lately) == ["words of mine"]
        assert await texts(retriever, "words") == []
        assert await texts(retriever, "words", Scope(("vs_none",))) == []
        assert await texts(retriever, "words", Scope(())) == []
        assert len(await texts(retriever, "words", Scope((mine, theirs)))) == 3
        store.modify(document_id, {"year": 2025})
        assert len(await texts(retriever, "words", lately)) == 2
        store.files.delete_store("me", mine)
        assert await texts(retriever, "words", Scope((mine,))) == []


async def test_a_change_is_honoured_by_the_next_query(store: SqliteStore) -> None:
    async with retriever_of(store) as retriever:
        for n in range(20):
            document_id = put(store, "a", f"edition number {n}")
            assert await texts(retriever, "edition number") == [f"edition number {n}"]
        store.delete(document_id)
        assert await texts(retriever, "edition number") == []


async def test_a_change_by_another_process_is_honoured_by_the_next_query(
    tmp_path: Path, store: SqliteStore
) -> None:
    put(store, "a", "old words")
    script = """
import sys
from retrieval.embed.hashing import HashingEmbedder
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document
store, embedder = SqliteStore(sys.argv[1]), HashingEmbedder(64)
store.claim_embedder(embedder.identity, embedder.dim)
document = Document(document_id_for("b"), "b", "b", "b", "", 1, 1, 0.0)
store.put(document, [Chunk(0, (), "new words", 2)], embedder.embed(["new words"]))
store.delete(document_id_for("a"))
"""
    async with retriever_of(store) as retriever:
        assert await texts(retriever, "words") == ["old words"]
        arguments = [sys.executable, "-c", script, str(tmp_path / "store.db")]
        subprocess.run(arguments, cwd=Path(retrieval.__file__).parents[1], check=True)
        assert await texts(retriever, "words") == ["new words"]


async def test_queries_that_come_together_share_one_refresh(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with retriever_of(store) as retriever:
        read: list[int] = []
        changes = store.changes
        monkeypatch.setattr(store, "changes", lambda since: read.append(since) or changes(since))
        put(store, "a", "some words")
        together = await asyncio.gather(*(texts(retriever, "some words") for _ in range(20)))
        assert together == [["some words"]] * 20
        assert len(read) == 1
        await texts(retriever, "some words")
        assert len(read) == 1


async def test_a_cancelled_query_leaves_the_next_one_whole(store: SqliteStore) -> None:
    put(store, "a", *(f"word {n}" for n in range(200)))
    async with retriever_of(store) as retriever:
        for n in range(30):
            put(store, "b", f"the newest {n}")
            query = asyncio.create_task(found(retriever, "the newest"))
            for _ in range(n):
                await asyncio.sleep(0)
            query.cancel()
            await asyncio.gather(query, return_exceptions=True)
            assert await texts(retriever, "the newest", top_k=1) == [f"the newest {n}"]


class HeldEmbedder(HashingEmbedder):
    """Embeds when it is let, and never on the event loop's thread."""

    def __init__(self) -> None:
        super().__init__(DIM)
        self.let = threading.Event()

    def embed(self, texts: Sequence[str]) -> Vectors:
        assert threading.current_thread() is not threading.main_thread()
        assert self.let.wait(30)
        return super().embed(texts)


async def test_the_event_loop_goes_on_while_a_query_is_embedded(store: SqliteStore) -> None:
    put(store, "a", "some words")
    embedder = HeldEmbedder()
    async with retriever_of(store, embedder=embedder) as retriever:
        query = asyncio.create_task(retriever.search(Query("some words"), Scope(), 3))
        for _ in range(5):
            await asyncio.sleep(0.005)
        assert not query.done()
        embedder.let.set()
        passages, timing = await query
        assert len(passages) == 1
        assert timing.embed_ms >= 20
        assert timing.search_ms > 0
        assert timing.rerank_ms == 0


async def test_a_question_is_searched_with_what_was_asked_before(store: SqliteStore) -> None:
    put(store, "a", "the price of bicycles", "the price of cheese")
    async with retriever_of(store) as retriever:
        for topic in ("bicycles", "cheese"):
            query = Query("and the price", (f"tell me of {topic}",))
            passages, _ = await retriever.search(query, Scope(), 1)
            assert [passage.text for passage in passages] == [f"the price of {topic}"]


async def test_vectors_of_earlier_questions_are_not_computed_again(store: SqliteStore) -> None:
    put(store, "a", "some words")
    embedder = CountingEmbedder()
    async with retriever_of(store, embedder=embedder) as retriever:
        await retriever.search(Query("first"), Scope(), 1)
        await retriever.search(Query("second", ("first",)), Scope(), 1)
    assert embedder.embedded == ["first", "second"]


class Backwards:
    """Judges the last highest, and leaves the first few without a judgement."""

    def __init__(self, n_unjudged: int) -> None:
        self.n_unjudged = n_unjudged

    def rerank(self, query: str, texts: Sequence[str], budget_ms: float) -> list[float | None]:
        return [None if at < self.n_unjudged else float(at) for at in range(len(texts))]


@pytest.mark.parametrize(("n_unjudged", "order"), [(0, [3, 2, 1, 0]), (2, [3, 2, 0, 1]), (4, [0, 1, 2, 3])])
async def test_the_reranker_orders_what_it_had_time_for(
    store: SqliteStore, n_unjudged: int, order: list[int]
) -> None:
    put(store, "a", "one two three four", "one two three five", "one two six five", "one seven six five")
    async with retriever_of(store, reranker=Backwards(n_unjudged)) as retriever:
        question = Query("one two three four")
        plain, _ = await retriever.search(question, Scope(), 4, ranker="none")
        judged, timing = await retriever.search(question, Scope(), 4)
        assert [passage.key for passage in judged] == [plain[at].key for at in order]
        assert timing.rerank_ms > 0
        assert len((await retriever.search(question, Scope(), 2))[0]) == 2


async def test_gone_are_the_keys_that_were_deleted_or_changed(store: SqliteStore) -> None:
    document_id = put(store, "a", "first words", "second words")
    other_id = put(store, "b", "other words")
    async with retriever_of(store) as retriever:
        keys = {passage.text: passage.key for passage in await found(retriever, "words")}
        assert await retriever.gone(()) == frozenset()
        assert await retriever.gone(keys.values()) == frozenset()
        assert await retriever.gone([10**6]) == {10**6}
        put(store, "a", "first words", "changed words")
        assert await retriever.gone(keys.values()) == {keys["second words"]}
        store.delete(document_id)
        assert await retriever.gone(keys.values()) == {keys["first words"], keys["second words"]}
        store.delete(other_id)
        assert await retriever.gone(keys.values()) == set(keys.values())


async def test_close_leaves_no_thread_and_keeps_the_store(store: SqliteStore) -> None:
    await asyncio.to_thread(lambda: None)
    before = set(threading.enumerate())
    async with retriever_of(store) as retriever:
        await texts(retriever, "words")
    left = {thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio")}
    assert not left
    assert store.documents() == []

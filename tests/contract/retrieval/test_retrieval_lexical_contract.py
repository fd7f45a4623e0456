"""What every `LexicalIndex` keeps to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from retrieval.lexical.tantivy_index import TantivyIndex
from retrieval.types import Entry, LexicalIndex, Rows, Selection

pytestmark = pytest.mark.anyio

TEXTS = {
    1: "The Wright brothers tested wings in a wind tunnel",
    2: "A tunnel under the sea",
    3: "Passports cost money",
    4: "Wind and weather, wind and rain",
}


@pytest.fixture(params=[TantivyIndex], ids=["tantivy"])
def index(request: pytest.FixtureRequest) -> Iterator[LexicalIndex]:
    index: LexicalIndex = request.param()
    yield index
    index.close()


def rows(texts: Mapping[int, str], document: int | None = None) -> Rows:
    """Each chunk is a document of its own with the chunk's key as its number, or all are one document."""
    keys = np.array(list(texts), dtype=np.int64)
    documents = keys if document is None else np.full(len(keys), document, dtype=np.int64)
    return Rows(keys, documents, np.zeros((len(keys), 1), dtype=np.float32), tuple(texts.values()))


def entries(numbers: Mapping[int, str] | list[int]) -> list[Entry]:
    stores = numbers if isinstance(numbers, Mapping) else dict.fromkeys(numbers, "a")
    return [Entry(number, store_id, {}) for number, store_id in stores.items()]


def all_of(*store_ids: str) -> Selection:
    return Selection(store_ids or ("a",), np.ones(0, dtype=np.bool_), True)


def only(documents: set[int], *store_ids: str) -> Selection:
    selected = np.zeros(max(documents, default=0) + 1, dtype=np.bool_)
    selected[list(documents)] = True
    return Selection(store_ids or ("a",), selected, False)


async def found(
    index: LexicalIndex, text: str, selection: Selection | None = None, top_k: int = 10
) -> list[int]:
    hits = await index.search([(text, 1.0)], top_k, selection or all_of())
    assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
    return [key for key, _ in hits]


async def filled(index: LexicalIndex, texts: Mapping[int, str] = TEXTS) -> None:
    await index.replace(entries(list(texts)), [rows(texts)])


async def test_words_are_found_by_their_stems_whatever_case_accents_and_width(index: LexicalIndex):
    await filled(index, {**TEXTS, 5: "Das Café in Zürich", 6: "東京タワーは高い", 7: "ＦＵＬＬ width"})
    assert await found(index, "testing a passport") == [1, 3] or await found(index, "testing a passport") == [
        3,
        1,
    ]
    assert await found(index, "WINDS") == [4, 1]
    assert await found(index, "cafe") == await found(index, "cafe\u0301") == [5]
    assert await found(index, "zurich") == [5]
    assert await found(index, "東京") == [6]
    assert await found(index, "full") == [7]


async def test_function_words_find_nothing(index: LexicalIndex):
    await filled(index)
    assert await found(index, "what is the and of a") == []
    assert await found(index, "") == []


async def test_a_rare_word_counts_more_than_a_frequent_one(index: LexicalIndex):
    await filled(index, {**{n: f"wind number{n}" for n in range(20)}, 50: "wind zebra", 51: "wind again"})
    assert (await found(index, "wind zebra", top_k=30))[0] == 50


async def test_parts_weigh_their_words(index: LexicalIndex):
    await filled(index, {1: "passport office", 2: "visa office"})
    for weights, best in (((1.0, 0.3), 1), ((0.3, 1.0), 2)):
        parts = list(zip(("passport", "visa"), weights, strict=True))
        assert (await index.search(parts, 2, all_of()))[0][0] == best
    assert await index.search([("passport", 0.0)], 2, all_of()) == []


async def test_scores_say_how_much_of_the_query_a_chunk_holds(index: LexicalIndex):
    await filled(index, {n: f"alpha{n} beta{n} gamma{n} delta{n}" for n in range(50)})
    everything = dict(await index.search([("alpha7 beta7 gamma7", 1.0)], 5, all_of()))
    a_third = dict(await index.search([("alpha7 unknown words", 1.0)], 5, all_of()))
    assert everything[7] == pytest.approx(1.0, abs=0.05)
    assert 0.25 < a_third[7] < 0.4
    doubled = dict(await index.search([("alpha7 beta7 gamma7", 2.0)], 5, all_of()))
    assert doubled == pytest.approx(everything, abs=1e-4)


async def test_a_change_is_seen_by_every_search_that_begins_after_it(index: LexicalIndex):
    await filled(index)
    for turn in range(10):
        new = 100 + turn
        await index.change([new - 1], entries([new]), rows({new: "a zebra in the wind"}))
        assert await found(index, "zebra") == [new]
        assert len(index) == len(TEXTS) + 1
    await index.change([109, 12345, -1], [], rows({}))
    assert await found(index, "zebra") == []
    await index.change([], entries([1]), rows({1: "zebra"}))
    assert await found(index, "zebra") == [1]
    assert await found(index, "Wright") == []
    assert len(index) == len(TEXTS)


async def test_replace_swaps_the_whole_content(index: LexicalIndex):
    await filled(index)
    await index.replace(entries({9: "b"}), [rows({9: "wind"})])
    assert await found(index, "wind") == []
    assert await found(index, "wind", all_of("a", "b")) == [9]
    await index.replace([], [])
    assert len(index) == 0
    assert await found(index, "wind", all_of("a", "b")) == []
    await filled(index)
    assert await found(index, "wind") == [4, 1]


async def test_another_store_is_never_found_and_does_not_move_a_score(index: LexicalIndex):
    await filled(index)
    before = await index.search([("wind tunnel", 1.0)], 10, all_of())
    foreign = dict.fromkeys(range(100, 160), "wind tunnel wind tunnel")
    await index.change([], entries(dict.fromkeys(foreign, "b")), rows(foreign))
    assert await index.search([("wind tunnel", 1.0)], 10, all_of()) == before
    assert set(await found(index, "wind", all_of("b"), 100)) == set(foreign)
    assert set(await found(index, "wind", all_of("a", "b"), 100)) == {1, 4, *foreign}
    assert await found(index, "wind", all_of("c")) == []
    await index.change(list(foreign), [], rows({}))
    assert await found(index, "wind", all_of("b")) == []
    assert len(index) == len(TEXTS)


@pytest.mark.parametrize("n_selected", [0, 1, 40, 900])
async def test_a_selection_finds_what_is_in_it_however_far_down_it_ranks(
    index: LexicalIndex, n_selected: int
):
    n = 1200
    texts = {key: "wind " * (1 + key % 3) + f"word{key}" for key in range(n)}
    await filled(index, texts)
    ranked = await index.search([("wind", 1.0)], n, all_of())
    assert len(ranked) == n
    # From the bottom of the ranking, so that a filter behind a short list would find nothing.
    selected = {key for key, _ in ranked[n - n_selected :]}
    expected = [hit for hit in ranked if hit[0] in selected]
    for top_k in (1, 10, n):
        assert await index.search([("wind", 1.0)], top_k, only(selected)) == expected[:top_k]


async def test_a_selection_is_of_documents_and_ends_where_its_array_ends(index: LexicalIndex):
    await index.replace(entries([1, 7]), [rows({10: "wind", 11: "wind"}, 1), rows({12: "wind"}, 7)])
    assert await found(index, "wind", only({1})) == [10, 11]
    assert await found(index, "wind", only({7})) == [12]
    assert await found(index, "wind", only({1, 7})) == [10, 11, 12]


async def test_equal_scores_are_ordered_and_cut_by_key(index: LexicalIndex):
    keys = np.random.default_rng(3).permutation(300)
    texts = {int(key): "wind and rain" for key in keys}
    await filled(index, texts)
    for n in range(0, 60, 7):  # over several segments, too
        await index.change([n], entries([1000 + n]), rows({1000 + n: "wind and rain"}))
    expected = sorted(set(texts) - set(range(0, 60, 7)) | {1000 + n for n in range(0, 60, 7)})
    for top_k in (1, 7, 150, 400):
        assert await found(index, "wind", top_k=top_k) == expected[:top_k]
    assert await found(index, "wind", top_k=0) == []


@pytest.mark.parametrize(
    "text",
    [
        'wind AND ("',
        "text:wind^99 OR *:* -tunnel",
        "wind\x00\ud800\U0010ffff",
        "wind " * 20_000,
        "wind " + "x" * 100_000,
        "wind " + " ".join(f"w{n}" for n in range(20_000)),
        "wind " + "風" * 100_000,
        "wind " + "\u0301" * 100_000,
    ],
    ids=["quotes", "syntax", "odd", "repeated", "long-word", "many-words", "spaceless", "marks"],
)
async def test_any_text_is_words_and_a_bounded_query(index: LexicalIndex, text: str):
    await filled(index)
    # The filter characters and field names of query languages would keep one of these away, or bring others in.
    assert set(await found(index, text)) in ({1, 4}, {1, 2, 4})
    await index.change([], entries([50]), rows({50: text}))
    assert 50 in await found(index, "wind")


async def test_searches_during_changes_see_whole_states(index: LexicalIndex):
    await filled(index, {n: f"wind generation0 n{n}" for n in range(20)})

    async def change() -> None:
        for turn in range(1, 12):
            gone = [100 * (turn - 1) + n for n in range(20)]
            texts = {100 * turn + n: f"wind generation{turn} n{n}" for n in range(20)}
            if turn % 3:
                await index.change(gone, entries(list(texts)), rows(texts))
            else:
                await index.replace(entries(list(texts)), [rows(texts)])

    async def search() -> None:
        for _ in range(60):
            hits = await found(index, "wind", top_k=50)
            assert len(hits) == 20
            assert len({key // 100 for key in hits}) == 1

    await asyncio.gather(change(), search(), search())


async def test_close_ends_its_threads():
    before = set(threading.enumerate())
    index = TantivyIndex()
    await filled(index)
    assert await found(index, "wind") == [4, 1]
    index.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError):
        await found(index, "wind")


async def test_without_a_language_words_are_taken_as_they_stand():
    index = TantivyIndex(language="")
    try:
        await filled(index, {1: "what is the wind", 2: "winds"})
        assert await found(index, "WIND") == [1]
        assert await found(index, "what") == [1]
    finally:
        index.close()

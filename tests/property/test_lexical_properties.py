"""A lexical index against a model of it: which words are in which live chunk of which store."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval.lexical.tantivy_index import TantivyIndex
from retrieval.lexical.text import MAX_QUERY_TERMS, analyzer, prepared, query_terms
from retrieval.types import Entry, Rows, Selection

WORDS = ("zebra", "tiger", "panda", "whale", "eagle")
STORES = ("a", "b", "c")

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
additions = st.lists(st.tuples(st.sampled_from(STORES), texts), max_size=4)
changes = st.tuples(st.lists(st.integers(0, 30), max_size=4, unique=True), additions)
searches = st.tuples(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(STORES), max_size=3),
    st.none() | st.integers(0, 2**12 - 1),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(changes, st.lists(searches, max_size=3)), min_size=1, max_size=5))
def test_a_search_finds_exactly_what_lives_in_its_stores_and_is_selected(steps):
    asyncio.run(play(steps))


async def play(steps) -> None:
    index = TantivyIndex()
    # By key: store, document (a few chunks each), text.
    alive: dict[int, tuple[str, int, str]] = {}
    next_key = 0
    try:
        for (gone, added), asked in steps:
            new = {}
            for store_id, text in added:
                new[next_key] = (store_id, 3 * (next_key // 6) + STORES.index(store_id), text)
                next_key += 1
            entries = [Entry(document, store_id, {}) for store_id, document, _ in new.values()]
            await index.change(gone, entries, rows(new))
            alive = {key: chunk for key, chunk in alive.items() if key not in gone} | new
            assert len(index) == len(alive)
            for word, store_ids, mask in asked:
                every = mask is None
                bits = [] if every else [bool(mask >> bit & 1) for bit in range(12)]
                selection = Selection(tuple(store_ids), np.array(bits, dtype=np.bool_), every)
                expected = {
                    key
                    for key, (store_id, document, text) in alive.items()
                    if store_id in store_ids
                    and word in text.split()
                    and (every or (document < len(bits) and bits[document]))
                }
                hits = await index.search([(word, 1.0)], 50, selection)
                assert len(hits) == len(expected)
                assert {key for key, _ in hits} == expected
                assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
                assert all(score > 0 for _, score in hits)
                assert await index.search([(word, 1.0)], 2, selection) == hits[:2]
    finally:
        index.close()


def rows(chunks: dict[int, tuple[str, int, str]]) -> Rows:
    return Rows(
        np.array(list(chunks), dtype=np.int64),
        np.array([document for _, document, _ in chunks.values()], dtype=np.int64),
        np.zeros((len(chunks), 1), dtype=np.float32),
        tuple(text for _, _, text in chunks.values()),
    )


ENGLISH = analyzer("english")


@given(st.lists(st.tuples(st.text(max_size=300), st.floats(0, 2)), max_size=4))
def test_terms_are_few_weighed_and_the_same_for_query_and_chunk(parts):
    terms = query_terms(ENGLISH, parts)
    assert len(terms) <= MAX_QUERY_TERMS
    assert all(weight > 0 for weight in terms.values())
    in_chunks = {term for text, weight in parts if weight > 0 for term in ENGLISH.analyze(prepared(text))}
    assert set(terms) <= in_chunks
    if len(in_chunks) <= MAX_QUERY_TERMS:
        assert set(terms) == in_chunks

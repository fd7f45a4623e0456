from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.neighbours import join, merge_neighbours
from retrieval.types import Passage

WORDS = [f"word{n}" for n in range(400)]


def count(text: str) -> int:
    return len(text.split())


def passage(ordinal: int, score: float, document: str = "d", heading: tuple[str, ...] = ()) -> Passage:
    """Chunks of ten words, two of them shared with the next one."""
    text = " ".join(WORDS[8 * ordinal : 8 * ordinal + 10])
    key = ordinal + (1000 if document == "d" else 2000)
    return Passage(
        chunk_id=f"{document}-{ordinal}",
        document_id=document,
        filename="f",
        title="t",
        heading_path=heading,
        text=text,
        n_tokens=10,
        score=score,
        key=key,
        ordinal=ordinal,
    )


def test_neighbours_become_one_passage_with_the_best_ones_score_and_key():
    merged = merge_neighbours(
        [passage(4, 0.9), passage(7, 0.8), passage(5, 0.7), passage(3, 0.6)], 100, count
    )
    assert [found.keys for found in merged] == [(1003, 1004, 1005), (1007,)]
    whole = merged[0].passage
    assert whole.text.split() == WORDS[24:50]
    assert (whole.score, whole.key, whole.n_tokens, whole.ordinal) == (0.9, 1004, 26, 3)
    assert merged[1].passage == passage(7, 0.8)


def test_other_documents_and_headings_stay_apart():
    hits = [passage(1, 0.9), passage(2, 0.8, "other"), passage(2, 0.7, heading=("A",))]
    assert [found.passage for found in merge_neighbours(hits, 100, count)] == hits


@given(
    st.lists(
        st.tuples(st.sampled_from(["d", "e"]), st.integers(0, 30), st.floats(0, 1)),
        unique_by=lambda hit: hit[:2],
        max_size=20,
    ),
    st.integers(5, 60),
)
def test_every_hit_stands_in_exactly_one_passage_within_the_bound(hits, max_tokens):
    passages = [passage(ordinal, score, document) for document, ordinal, score in hits]
    merged = merge_neighbours(passages, max_tokens, count)
    assert sorted(key for found in merged for key in found.keys) == sorted(p.key for p in passages)
    scores = [found.passage.score for found in merged]
    assert scores == sorted(scores, reverse=True)
    by_key = {p.key: p for p in passages}
    for found in merged:
        members = [by_key[key] for key in found.keys]
        assert found.passage.n_tokens == count(found.passage.text)
        assert len(members) == 1 or found.passage.n_tokens <= max_tokens
        assert [member.ordinal for member in members] == list(
            range(members[0].ordinal, members[0].ordinal + len(members))
        )
        assert found.passage.score == max(member.score for member in members)
        assert all(member.text in found.passage.text for member in members)


@given(st.text(min_size=1, max_size=200), st.integers(0, 199), st.integers(0, 199))
def test_pieces_join_without_losing_a_word_or_doubling_a_long_overlap(text, one, other):
    first, second = sorted((one % (len(text) + 1), other % (len(text) + 1)))
    before, after = text[:second], text[first:]
    joined = join([before, after])
    assert joined.startswith(before)
    assert joined.endswith(after)
    if second - first >= 8:
        assert len(joined) <= len(text)

"""Neighbouring hits of one document as one passage.

A prompt that only grows remembers passages by key. So a merged passage comes with the keys of all its chunks:
whoever puts it into a prompt remembers each of them, and merges only what is not in the prompt yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from retrieval.types import Passage

_LONGEST_OVERLAP = 4_096
_SHORTEST_OVERLAP = 8
"""Characters. Fewer in common are chance."""


@dataclass(frozen=True, slots=True)
class Merged:
    passage: Passage
    keys: tuple[int, ...]
    """Of the chunks it was made of, in reading order; the passage's own is the one that scored best."""


def merge_neighbours(
    passages: Sequence[Passage], max_tokens: int, count_tokens: Callable[[str], int]
) -> list[Merged]:
    """Hits with consecutive ordinals under one heading become one passage of at most `max_tokens`.

    Only hits are merged, nothing is fetched. A run is filled from its best hit on, so the best ones are the last
    to be left out. Scores, order and everything else are the best hit's; text that two chunks share stands once.
    """
    at = {(passage.document_id, passage.ordinal): passage for passage in passages}
    taken: set[tuple[str, int]] = set()
    merged: list[Merged] = []
    for passage in sorted(passages, key=lambda passage: (-passage.score, passage.key)):
        if (passage.document_id, passage.ordinal) not in taken:
            run = _run(passage, at, taken, max_tokens, count_tokens)
            taken.update((member.document_id, member.ordinal) for member in run)
            merged.append(_as_one(passage, run, count_tokens))
    return merged


def join(texts: Sequence[str]) -> str:
    """Texts in reading order; what one ends and the next begins with stands once."""
    joined = ""
    for text in texts:
        n_shared = _overlap(joined, text)
        # Chunks are stripped, so of the space between two that share nothing it is not known what it was.
        joined = joined + text[n_shared:] if n_shared or not joined else f"{joined}\n{text}"
    return joined


def _run(
    best: Passage,
    at: dict[tuple[str, int], Passage],
    taken: set[tuple[str, int]],
    max_tokens: int,
    count_tokens: Callable[[str], int],
) -> list[Passage]:
    run = [best]
    open_ends = {-1, 1}
    while open_ends:
        ends = {-1: run[0].ordinal - 1, 1: run[-1].ordinal + 1}
        nearby = [(step, at.get((best.document_id, ends[step]))) for step in sorted(open_ends)]
        fitting = [
            (found.score, step, found)
            for step, found in nearby
            if found is not None
            and (found.document_id, found.ordinal) not in taken
            and found.heading_path == best.heading_path
        ]
        if not fitting:
            break
        _, step, found = max(fitting, key=lambda candidate: candidate[:2])
        longer = [found, *run] if step < 0 else [*run, found]
        if count_tokens(join([member.text for member in longer])) <= max_tokens:
            run = longer
        else:
            open_ends.discard(step)
    return run


def _as_one(best: Passage, run: Sequence[Passage], count_tokens: Callable[[str], int]) -> Merged:
    keys = tuple(member.key for member in run)
    if len(run) == 1:
        return Merged(best, keys)
    text = join([member.text for member in run])
    passage = replace(best, text=text, n_tokens=count_tokens(text), ordinal=run[0].ordinal, page=run[0].page)
    return Merged(passage, keys)


def _overlap(before: str, after: str) -> int:
    """How many characters at the start of `after` are the end of `before`."""
    for n in range(min(len(before), len(after), _LONGEST_OVERLAP), 0, -1):
        if before.endswith(after[:n]):
            return n if n >= _SHORTEST_OVERLAP else 0
    return 0

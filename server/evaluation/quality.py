"""How good an answer is, as far as words can tell.

Token F1 with the normalisation of SQuAD's evaluation script (P. Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine
Comprehension of Text", 2016); containment is its recall alone, which does not punish an answer for saying more than the
reference. Neither knows whether an answer is true: they tell two layouts of the same prompt apart, no more.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CITED = re.compile(r"\[(\d{1,6}(?:\s*,\s*\d{1,6})*)\]")


def tokens(text: str) -> list[str]:
    """Lower case, without punctuation and articles, split at white space."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(answer: str, reference: str) -> float:
    """In [0, 1]. Of two texts without a token, 1; of one, 0."""
    said, wanted = tokens(answer), tokens(reference)
    if not said or not wanted:
        return float(said == wanted)
    shared = _shared(said, wanted)
    return 2 * shared / (len(said) + len(wanted))


def containment(answer: str, reference: str) -> float:
    """Share of the reference's tokens that are in the answer, each as often as it is there. Of no token, 1."""
    wanted = tokens(reference)
    return _shared(tokens(answer), wanted) / len(wanted) if wanted else 1.0


def cited_numbers(answer: str) -> set[int]:
    """What the answer names as [2] or [1, 3]."""
    return {int(number) for group in _CITED.findall(answer) for number in group.split(",")}


@dataclass(frozen=True, slots=True)
class Citations:
    """Of a turn whose relevant passages are known."""

    source_precision: float | None
    """Share of the turn's sources that are relevant; None without a source."""
    source_recall: float
    """Share of the relevant passages that are among the turn's sources."""
    names_relevant: bool
    """The answer names the number of a relevant passage."""


def citations(
    answer: str, sources: Sequence[str], numbers: Mapping[int, str], relevant: frozenset[str]
) -> Citations | None:
    """`sources` are the passages of this turn, `numbers` what the prompt calls each passage in it.

    None where no passage is known to be relevant.
    """
    if not relevant:
        return None
    found = relevant.intersection(sources)
    return Citations(
        source_precision=len(found) / len(set(sources)) if sources else None,
        source_recall=len(found) / len(relevant),
        names_relevant=any(numbers.get(number) in relevant for number in cited_numbers(answer)),
    )


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    return (Counter(one) & Counter(other)).total()

"""What is looked up for a turn: texts to embed and words to search, with how much each counts.

A follow-up ("and how much does it cost?") names its subject in an earlier message. So the earlier messages count
too, less the older they are, and the words of the assistant's last message a little. Texts that earlier turns have
embedded are taken from the embedder's cache: of the form `weighted` only the newest message is embedded anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retrieval.types import Query, Vectors

QueryForm = Literal["last", "last_two", "last_three", "rules", "weighted"]

REPLY_CHARACTERS = 300
_MESSAGE_WEIGHTS = (1.0, 0.5, 0.25)
_REPLY_WEIGHT = 0.1

_SHORT_WORDS = 5
_LEANING = re.compile(
    r"^\W*(and|but|also|so|or|then|why|what about|how about|what else|which one)\b"
    r"|\b(it|its|they|them|their|that|this|these|those|he|him|his|she|her|there|one|ones|same|other|others|else)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Pairs of a text and its weight, the newest message first."""

    dense: tuple[tuple[str, float], ...]
    lexical: tuple[tuple[str, float], ...]


def plan(query: Query, form: QueryForm = "weighted") -> QueryPlan:
    """The forms, so that an evaluation can compare them:

    `last`, `last_two`, `last_three`: that many of the user's messages as one text;
    `rules`: the last message, and the one before where the last is short or leans on it (pronouns, "and ...");
    `weighted`: three messages, each half as heavy as the next, and the assistant's last one for its words.
    """
    messages = (query.question, *reversed(query.previous))
    match form:
        case "last":
            return _joined(messages[:1])
        case "last_two":
            return _joined(messages[:2])
        case "last_three":
            return _joined(messages[:3])
        case "rules":
            return _joined(messages[: 2 if leans_on_history(query.question) else 1])
        case "weighted":
            return _weighted(messages, query.reply)


def leans_on_history(question: str) -> bool:
    """Whether an English question cannot be understood alone, by its look: it is short, or points back."""
    return len(question.split()) <= _SHORT_WORDS or _LEANING.search(question) is not None


def query_vector(vectors: Vectors, weights: Sequence[float]) -> Vectors:
    """`(1, dim)`, L2-normalised: the sum of the `(n, dim)` vectors, each times its weight."""
    summed = np.asarray(weights, dtype=np.float32) @ vectors
    norm = float(np.linalg.norm(summed))
    # Opposite vectors may cancel each other out; then the newest message decides alone.
    vector = summed / norm if norm > 1e-6 else vectors[0]
    return np.ascontiguousarray(vector[np.newaxis], dtype=np.float32)


def _joined(messages: Sequence[str]) -> QueryPlan:
    """As one text, newest first: a model that cuts long texts then cuts the oldest words."""
    text = "\n".join(message for message in messages if message.strip())
    return QueryPlan(dense=((text, 1.0),), lexical=((text, 1.0),))


def _weighted(messages: Sequence[str], reply: str) -> QueryPlan:
    parts = tuple(
        (message, weight)
        for at, (message, weight) in enumerate(zip(messages, _MESSAGE_WEIGHTS, strict=False))
        if at == 0 or message.strip()
    )
    words = reply[:REPLY_CHARACTERS]
    return QueryPlan(dense=parts, lexical=(*parts, (words, _REPLY_WEIGHT)) if words.strip() else parts)

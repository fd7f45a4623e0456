"""`python -m bench.contextpilot.make_conversations DATA OUT`: retrieves passages for every turn of a data set.

`DATA` holds `passages.jsonl` (`id`, `text`, `collection`) and `conversations.jsonl` (`id`, `collection`, `turns` of
`user` and `agent`). A turn gets the best whole passages of its conversation's collection by cosine; the query is the
previous user message and this one. Replies are the data set's.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from bench.contextpilot.conversation import Conversation, Passage, Turn, write_conversations
from retrieval.embed.spec import SentenceTransformerEmbedder
from retrieval.types import Vectors
from server.settings import PROJECT_ROOT

EMBEDDER = PROJECT_ROOT / "var" / "models" / "all-MiniLM-L6-v2"

_Line = TypeVar("_Line")


class SourcePassage(msgspec.Struct, frozen=True):
    id: str
    text: str
    collection: str


class SourceTurn(msgspec.Struct, frozen=True):
    user: str
    agent: str


class SourceConversation(msgspec.Struct, frozen=True):
    id: str
    collection: str
    turns: tuple[SourceTurn, ...]

    def queries(self) -> list[str]:
        asked = [turn.user for turn in self.turns]
        return ["\n".join(asked[max(0, place - 1) : place + 1]) for place in range(len(asked))]


class Collection:
    """Passages that are searched together."""

    def __init__(self, passages: Sequence[SourcePassage], vectors: Vectors) -> None:
        self._passages = passages
        self._vectors = vectors

    def best(self, query: Vectors, top_k: int) -> tuple[Passage, ...]:
        """`query`: (dim,) float32, L2-normalised, like the passages' vectors."""
        scores = self._vectors @ query
        rows = np.argsort(-scores, kind="stable")[:top_k]
        return tuple(
            Passage(self._passages[row].id, self._passages[row].text, float(scores[row])) for row in rows
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.contextpilot.make_conversations", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--top-k", type=int, default=4, help="passages of a turn (default: 4)")
    parser.add_argument("--turns", type=int, default=3, help="of a conversation at least (default: 3)")
    arguments = parser.parse_args()
    passages = _read(arguments.data / "passages.jsonl", SourcePassage)
    sources = _read(arguments.data / "conversations.jsonl", SourceConversation)
    sources = [source for source in sources if len(source.turns) >= arguments.turns]
    write_conversations(arguments.out, retrieve(passages, sources, arguments.top_k))
    print(
        f"{len(sources)} conversations, {sum(len(source.turns) for source in sources)} turns: {arguments.out}"
    )


def retrieve(
    passages: Sequence[SourcePassage], sources: Sequence[SourceConversation], top_k: int
) -> list[Conversation]:
    queries = [query for source in sources for query in source.queries()]
    vectors = _embed([passage.text for passage in passages] + queries)
    of_queries = iter(vectors[len(passages) :])
    collections: dict[str, Collection] = {}
    for name in {passage.collection for passage in passages}:
        rows = [row for row, passage in enumerate(passages) if passage.collection == name]
        collections[name] = Collection([passages[row] for row in rows], vectors[rows])
    return [
        Conversation(
            source.id,
            tuple(
                Turn(turn.user, collections[source.collection].best(next(of_queries), top_k), turn.agent)
                for turn in source.turns
            ),
        )
        for source in sources
    ]


def _embed(texts: Sequence[str]) -> Vectors:
    """(n_texts, dim) float32, L2-normalised; kept in the temporary folder for the next run."""
    named = hashlib.sha256("\0".join([str(EMBEDDER), *texts]).encode()).hexdigest()[:24]
    kept = Path(tempfile.gettempdir()) / f"firstword-bench-vectors-{named}.npy"
    if kept.exists():
        found: Vectors = np.load(kept)
        return found
    vectors = SentenceTransformerEmbedder(str(EMBEDDER)).embed(texts)
    np.save(kept, vectors)
    return vectors


def _read(path: Path, kind: type[_Line]) -> list[_Line]:
    return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines()]


if __name__ == "__main__":
    main()

"""What is replayed: conversations whose passages were retrieved and whose replies were given beforehand."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Passage(msgspec.Struct, frozen=True):
    id: str
    text: str
    score: float = 0.0
    """Cosine with the query."""


class Turn(msgspec.Struct, frozen=True):
    question: str
    passages: tuple[Passage, ...]
    """Best first."""
    reply: str


class Conversation(msgspec.Struct, frozen=True):
    id: str
    turns: tuple[Turn, ...]


def read_conversations(path: Path) -> list[Conversation]:
    """Raises `OSError`, or `msgspec.DecodeError` where the file holds something else."""
    return msgspec.json.decode(path.read_bytes(), type=list[Conversation])


def write_conversations(path: Path, conversations: list[Conversation]) -> None:
    path.write_bytes(msgspec.json.encode(conversations))

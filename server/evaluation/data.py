"""A folder of real conversations and the passages that they are asked against, read and checked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from server.errors import ConfigError

PASSAGES = "passages.jsonl"
CONVERSATIONS = "conversations.jsonl"

_NEXT_STEP = f"mend that line; docs/evaluation.md says what {PASSAGES} and {CONVERSATIONS} hold"

T = TypeVar("T")


class SourcePassage(msgspec.Struct, frozen=True):
    """One line of `passages.jsonl`."""

    id: str
    text: str
    collection: str


class Exchange(msgspec.Struct, frozen=True):
    """One turn as it was held. `agent` is the reference reply."""

    user: str
    agent: str


class Conversation(msgspec.Struct, frozen=True):
    """One line of `conversations.jsonl`."""

    id: str
    collection: str
    turns: tuple[Exchange, ...]
    relevant: frozenset[str] = frozenset()
    """Ids of the passages that answer the last turn; empty where that is not known or nothing does."""


@dataclass(frozen=True, slots=True)
class Data:
    name: str
    passages: dict[str, tuple[SourcePassage, ...]]
    """By collection."""
    conversations: tuple[Conversation, ...]
    sha256: str
    """Of both files."""


def read_data(folder: Path) -> Data:
    """Raises `ConfigError` that names the file, the line and what is wrong there."""
    raw_passages, raw_conversations = _read(folder / PASSAGES), _read(folder / CONVERSATIONS)
    passages: dict[str, list[SourcePassage]] = defaultdict(list)
    collection_of: dict[str, str] = {}
    for where, passage in _lines(raw_passages, PASSAGES, SourcePassage):
        if not passage.id.strip() or not passage.text.strip():
            raise _wrong(where, "id and text must not be blank")
        if passage.id in collection_of:
            raise _wrong(where, f"the id {passage.id!r} stands on an earlier line too")
        collection_of[passage.id] = passage.collection
        passages[passage.collection].append(passage)
    conversations: dict[str, Conversation] = {}
    for where, conversation in _lines(raw_conversations, CONVERSATIONS, Conversation):
        if conversation.id in conversations:
            raise _wrong(where, f"the id {conversation.id!r} stands on an earlier line too")
        _check(conversation, where, collection_of, passages)
        conversations[conversation.id] = conversation
    digest = hashlib.sha256(raw_passages + b"\n" + raw_conversations).hexdigest()
    return Data(
        folder.resolve().name,
        {name: tuple(held) for name, held in passages.items()},
        tuple(conversations.values()),
        digest,
    )


def choose(
    conversations: Sequence[Conversation],
    n: int | None,
    *,
    min_turns: int = 1,
    max_turns: int | None = None,
    seed: int = 0,
) -> list[Conversation]:
    """At most `n` conversations of so many turns, in the order in which they are replayed.

    The same for the same seed, whatever the order of the lines; the beginning of the list holds the collections in the
    same proportion as the whole, so that a smaller `n`, or a run that was interrupted, is a fair sample of a larger one.
    Raises `ConfigError` when there are none.
    """
    strata: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        if min_turns <= len(conversation.turns) <= (max_turns or len(conversation.turns)):
            strata[conversation.collection].append(conversation)
    if not strata:
        bounds = f"{min_turns} turns or more" + (f" and at most {max_turns}" if max_turns else "")
        raise ConfigError(
            f"no conversation has {bounds}",
            next_step="ask for shorter or longer ones: --min-turns, --max-turns",
        )
    placed: list[tuple[float, str, Conversation]] = []
    for stratum in strata.values():
        stratum.sort(key=lambda conversation: _draw(seed, conversation.id))
        placed.extend(
            ((rank + 0.5) / len(stratum), conversation.id, conversation)
            for rank, conversation in enumerate(stratum)
        )
    placed.sort(key=lambda place: place[:2])
    return [conversation for _, _, conversation in placed[:n]]


def _draw(seed: int, conversation_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{conversation_id}".encode()).digest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}",
            next_step=f"name a folder that holds {PASSAGES} and {CONVERSATIONS}",
        ) from None


def _lines(raw: bytes, name: str, type_: type[T]) -> Iterator[tuple[str, T]]:
    decoder = msgspec.json.Decoder(type_)
    found = False
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            yield where, decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _wrong(where, str(error)) from None
        found = True
    if not found:
        raise ConfigError(f"{name} is empty", next_step="name a folder whose files hold something")


def _check(
    conversation: Conversation,
    where: str,
    collection_of: dict[str, str],
    passages: dict[str, list[SourcePassage]],
) -> None:
    if not conversation.turns:
        raise _wrong(where, "there is no turn; expected at least one")
    for number, turn in enumerate(conversation.turns, start=1):
        if not turn.user.strip():
            raise _wrong(where, f"the user's message of turn {number} is blank")
    if conversation.collection not in passages:
        raise _wrong(where, f"no passage has the collection {conversation.collection!r}")
    for passage_id in sorted(conversation.relevant):
        if collection_of.get(passage_id) != conversation.collection:
            raise _wrong(where, f"relevant: its collection has no passage {passage_id!r}")


def _wrong(where: str, what: str) -> ConfigError:
    return ConfigError(f"{where}: {what}", next_step=_NEXT_STEP)

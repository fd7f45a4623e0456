"""The ledger of each conversation, found by what the client sends back.

Clients are stateless: every message has a key that chains the keys of all before it, so that the same history
under the same tenant and retrieval scope finds the same entries, and one that was edited, branched or regenerated
shares those up to the first message that differs. What is not found is rebuilt from the messages themselves.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import msgspec

from server.context.conversation import Conversation
from server.context.entry import Entry, decode_entry, encode_entry
from server.context.ledger_store import LedgerStore
from server.context.template import Message

_KEY_BYTES = 16
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Recalled:
    """A conversation with what the ledger knows of it."""

    conversation: Conversation
    root: bytes
    """Of all conversations that may share their beginning: tenant, scope, system message, tools, layout."""
    keys: tuple[bytes, ...]
    """One for each of `conversation.messages`."""
    entries: tuple[Entry, ...]
    """Of the leading messages that are known; the last of them may be the question, asked before."""

    @property
    def history_key(self) -> bytes:
        """Of all ahead of the question."""
        return self.keys[self.conversation.asked_at - 1] if self.conversation.history else self.root

    @property
    def knows_history(self) -> bool:
        return len(self.entries) >= len(self.conversation.history)


class Ledger:
    def __init__(self, store: LedgerStore, fingerprint: bytes) -> None:
        """`fingerprint`: of tokenizer, template and layout; entries of another are never found."""
        self.store = store
        self._fingerprint = fingerprint
        self._writing: dict[bytes, asyncio.Task[None]] = {}
        """By the key of the last message that was answered."""
        self.recalled = {"whole": 0, "part": 0, "none": 0, "first": 0}
        """Turns by how much of their history was known."""

    async def recall(
        self, conversation: Conversation, tenant: str, scope: str, tools: Sequence[dict[str, Any]] = ()
    ) -> Recalled:
        located = self.locate(conversation, tenant, scope, tools)
        # The turn before may just have ended. Others' are not waited for: a shared store may be slow.
        for writing in [self._writing[key] for key in located.keys if key in self._writing]:
            await asyncio.shield(writing)
        values = await self.store.get(located.keys)
        return replace(located, entries=tuple(_decoded(values)))

    def locate(
        self, conversation: Conversation, tenant: str, scope: str, tools: Sequence[dict[str, Any]] = ()
    ) -> Recalled:
        """Where the ledger would keep it, nothing looked up."""
        root = self._root(tenant, scope, conversation.system, tools)
        return Recalled(conversation, root, chain(root, conversation.messages), ())

    def count(self, recalled: Recalled) -> None:
        """A turn goes on with what was recalled."""
        known = min(len(recalled.entries), len(recalled.conversation.history))
        whole = known == len(recalled.conversation.history)
        outcome = ("first" if not known else "whole") if whole else "part" if known else "none"
        self.recalled[outcome] += 1

    def commit(
        self, recalled: Recalled, entries: Sequence[Entry], replies: Sequence[tuple[Message, Entry]]
    ) -> None:
        """Keep the prompt's entries and what was replied to it, one or several side by side. Does not block.

        `entries` has one for each of the conversation's messages.
        """
        values: dict[bytes, bytes] = {}
        known = recalled.entries
        for position, (key, entry) in enumerate(zip(recalled.keys, entries, strict=True)):
            if position >= len(known) or known[position] != entry:
                values[key] = encode_entry(entry)
        for reply, entry in replies:
            (key,) = chain(recalled.keys[-1], [reply])
            values[key] = encode_entry(entry)
        question = recalled.keys[-1]
        before = self._writing.get(question)
        task = asyncio.create_task(self._put(values, recalled.keys, before), name="ledger-commit")
        self._writing[question] = task
        task.add_done_callback(lambda done: self._written(question, done))

    async def _put(
        self, values: dict[bytes, bytes], after: Sequence[bytes], before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await before
        await self.store.put(values, after)

    def _written(self, question: bytes, task: asyncio.Task[None]) -> None:
        if self._writing.get(question) is task:
            del self._writing[question]

    async def close(self) -> None:
        """What was committed is kept as the store keeps it."""
        await asyncio.gather(*self._writing.values(), return_exceptions=True)
        await self.store.close()

    def _root(self, tenant: str, scope: str, system: str | None, tools: Sequence[dict[str, Any]]) -> bytes:
        # A tool's schema may hold integers of any size, which MessagePack does not take.
        offered = msgspec.json.encode(list(tools), order="deterministic")
        told = _encode([tenant, scope, _normal_text(system or ""), offered])
        return blake2b(self._fingerprint + told, digest_size=_KEY_BYTES).digest()


def _decoded(values: Sequence[bytes]) -> Iterator[Entry]:
    """Up to the first that is not an entry."""
    with suppress(msgspec.DecodeError, msgspec.ValidationError):
        for value in values:
            yield decode_entry(value)


def chain(parent: bytes, messages: Sequence[Message]) -> tuple[bytes, ...]:
    """One key for each message, made of it and all before it."""
    keys = []
    for message in messages:
        parent = blake2b(parent + _encode(_normal(message)), digest_size=_KEY_BYTES).digest()
        keys.append(parent)
    return tuple(keys)


def _normal(message: Message) -> list[Any]:
    """What stays the same when clients trim, re-encode or re-serialise what they were sent."""
    calls = [[call.name, _normal_arguments(call.arguments)] for call in message.tool_calls]
    return [message.role, _normal_text(message.content), calls]


def _normal_text(text: str) -> str:
    text = text.strip()
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _normal_arguments(arguments: str) -> Any:
    """SDKs parse a call's arguments and print them anew."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic")
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError):
        return arguments

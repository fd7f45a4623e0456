"""What one message of a conversation is in the prompt: the unit that the ledger keeps.

The template's tokens between messages are not in it, since they follow from the roles; nor is the text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import msgspec

_UINT32 = next(code for code in "IL" if array(code).itemsize == 4)


class Injected(msgspec.Struct, frozen=True, array_like=True):
    """A passage in the prompt."""

    number: int
    """What the prompt calls it: counted through the conversation, never used again."""
    key: int
    """The store's key of the chunk, which names this version of it: a changed document's chunks get new ones."""
    chunk_id: str
    tokens: bytes
    """Its line; see `pack`."""
    also: tuple[int, ...] = ()
    """Keys of neighbouring chunks whose text is in it, too."""

    @property
    def keys(self) -> tuple[int, ...]:
        return (self.key, *self.also)


class Retrieved(msgspec.Struct, frozen=True, array_like=True):
    """A passage that a turn's search returned, whether it was new to the prompt or not."""

    chunk_id: str
    n_tokens: int


def by_key(entries: Iterable[Entry]) -> dict[int, Injected]:
    """The passages in the prompt, by the key of each chunk that is in them."""
    return {key: passage for entry in entries for passage in entry.passages for key in passage.keys}


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One message. Of a dropped one nothing stands in the prompt."""

    content: bytes
    """The question with what stands around it, the reply's own tokens, a tool's answer; see `pack`."""
    passages: tuple[Injected, ...] = ()
    """Those that were new to the prompt with this message, in the prompt's order."""
    pointed: tuple[int, ...] = ()
    """Numbers of those that were in the prompt already and are wanted again."""
    numbered_to: int = 0
    """The highest number that a passage has had up to here, also of those that are gone."""
    retrieved: tuple[Retrieved, ...] = ()
    """What the search returned, best first: what the usual layout would have held."""
    opening: bytes = b""
    """Of a conversation's first message: all that stands ahead of it, as it was when the conversation began."""
    dropped: bool = False


def pack(token_ids: Iterable[int]) -> bytes:
    """Four bytes a token, in this machine's byte order."""
    return array(_UINT32, token_ids).tobytes()


def unpack(tokens: bytes) -> list[int]:
    return array(_UINT32, tokens).tolist()


def n_tokens(tokens: bytes) -> int:
    return len(tokens) // 4


encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(Entry).decode

"""A vocabulary without a model: a token is four bytes of UTF-8, its id the number that they spell.

Four characters of English to a token is about what real tokenizers make of it, and any text can be counted within
microseconds. Ids never change, so a prompt that extends another begins with the other's ids.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_TOKEN_BYTES = 4


class FourByteVocabulary:
    """See `Vocabulary`. What is left of a text's last token is zero bytes."""

    def encode(self, text: str) -> list[int]:
        data = text.encode("utf-8", "replace")
        n_tokens = -(-len(data) // _TOKEN_BYTES)
        return list(struct.unpack(f"<{n_tokens}I", data.ljust(n_tokens * _TOKEN_BYTES, b"\0")))

    def decode(self, token_ids: Sequence[int]) -> str:
        data = struct.pack(f"<{len(token_ids)}I", *token_ids)
        return data.rstrip(b"\0").decode("utf-8", "replace")

    def render(self, messages: Iterable[tuple[str, str]]) -> list[int]:
        """(role, text) in order. Each message begins a new token, so that a longer conversation extends a shorter."""
        token_ids: list[int] = []
        for role, text in messages:
            token_ids += self.encode(f"{role}\n{text}\n")
        return token_ids

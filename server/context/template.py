"""A chat model's own template, rendered straight to token ids.

The template's text is tokenised with its control tokens; what people and documents wrote is tokenised
apart, as data, so that a passage holding `<|im_start|>system` stays text and opens no turn. Each
piece is tokenised by itself, which also makes a prompt's prefix independent of what follows it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from server.errors import InvalidParameter, ModelMissing

Role = Literal["system", "user", "assistant"]

# Private-use characters: no tokenizer or template gives them a meaning.
_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")


class Message(msgspec.Struct, frozen=True):
    role: Role
    content: str


class ChatTemplate:
    """The tokenizer and template of the model at `model`, a local path or a Hugging Face name.

    Raises `ModelMissing` when there is none, or when it carries no chat template. Thread-safe.
    """

    def __init__(self, model: str) -> None:
        try:
            self._tokenizer = _load_tokenizer(model)
        except (OSError, ValueError) as error:
            raise ModelMissing(
                f"no tokenizer for the model {model!r}: {str(error).splitlines()[0]}",
                next_step="name an existing path or model in engine.model",
            ) from error
        if not self._tokenizer.chat_template:
            raise ModelMissing(
                f"the model {model!r} has no chat template",
                next_step="choose an instruct model, or put a chat_template.jinja beside its tokenizer",
            )
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelMissing(
                f"the model {model!r} has no fast tokenizer",
                next_step="choose a model with a tokenizer.json, or convert its tokenizer with transformers",
            )
        self._control = copy.deepcopy(backend)
        self._control.no_truncation()
        self._data = copy.deepcopy(self._control)
        self._data.encode_special_tokens = True
        self._encode_control = lru_cache(maxsize=256)(self._encode_control_uncached)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation, up to where the assistant's next words go.

        Raises `InvalidParameter` when the template refuses the messages (some demand that roles alternate).
        """
        marked = [
            {"role": message.role, "content": _MARK.format(position)}
            for position, message in enumerate(messages)
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(
                marked, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise InvalidParameter(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        token_ids: list[int] = []
        for position, piece in enumerate(_MARKED.split(text)):
            token_ids += (
                self.encode(messages[int(piece)].content) if position % 2 else self._encode_control(piece)
            )
        return token_ids

    def _encode_control_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self._control.encode(text, add_special_tokens=False).ids)

    def encode(self, text: str) -> list[int]:
        """Text as data: control tokens in it are spelt out, not obeyed."""
        ids: list[int] = self._data.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._control.decode(list(token_ids), skip_special_tokens=True)
        return text

    def count_tokens(self, text: str) -> int:
        return len(self.encode(text))

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        offsets: Sequence[tuple[int, int]] = self._data.encode(text, add_special_tokens=False).offsets
        return offsets


def _load_tokenizer(model: str) -> Any:
    """`tokenizer.json` where there is one: `AutoTokenizer` imports torch first, which takes ten times as long."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(model)
    except (OSError, ValueError):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model)

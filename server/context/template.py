"""A chat model's own template, rendered straight to token ids.

The template's text is tokenised with its control tokens; what people and documents wrote is tokenised
apart, as data, so that a passage holding `<|im_start|>system` stays text and opens no turn. Each
piece is tokenised by itself, which also makes a prompt's prefix independent of what follows it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from datetime import date
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from server.errors import InvalidParameter, ModelMissing
from server.strict_json import json_depth

# System messages and earlier turns come again and again: at most 16 MB of them are remembered.
_SHORT_CHARACTERS = 4_000
_SHORT_TEXTS_KEPT = 2_048
_OFFSETS_CHARACTERS = 200
"""Above it, not keeping each token's place in the text saves more than a batch of one costs: a fifth of a passage."""

_DEEPEST_ARGUMENTS = 64

Role = Literal["system", "user", "assistant", "tool"]

Piece = tuple[int, ...] | int
"""Token ids, or the position of a message."""

# Private-use characters: no tokenizer or template gives them a meaning.
_MARK_BEGINS = "\ue000"
_MARK = _MARK_BEGINS + "{}\ue001"
MARKED = re.compile("\ue000(\\d+)\ue001")
"""Stands in an outline for the content of the message at that position."""

_TOOLS_PROMPT = """\
You may call functions to help with the user's request. They are described between the tags:
<tools>
{tools}
</tools>
To call one, write a JSON object with its name and arguments between tags, and nothing else:
<tool_call>
{{"name": <name>, "arguments": <arguments as a JSON object>}}
</tool_call>"""
"""For templates without a place for tools: the layout of NousResearch's Hermes function calling."""


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class Message(msgspec.Struct, frozen=True):
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Only of the assistant."""
    tool_call_id: str = ""
    """Only of a tool: which call it answers."""


class ChatTemplate:
    """The tokenizer and template of the model at `model`, a local path or a Hugging Face name.

    A `tokenizer` already loaded is used in place of the model's. Raises `ModelMissing` when there is none, or when
    it carries no chat template. Thread-safe.
    """

    def __init__(self, model: str, tokenizer: Any = None) -> None:
        try:
            self.tokenizer = _load_tokenizer(model) if tokenizer is None else tokenizer
        except (OSError, ValueError) as error:
            raise ModelMissing(
                f"no tokenizer for the model {model!r}: {str(error).splitlines()[0]}",
                next_step="name an existing path or model in engine.model",
            ) from error
        if not self.tokenizer.chat_template:
            raise ModelMissing(
                f"the model {model!r} has no chat template",
                next_step="choose an instruct model, or put a chat_template.jinja beside its tokenizer",
            )
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelMissing(
                f"the model {model!r} has no fast tokenizer",
                next_step="choose a model with a tokenizer.json, or convert its tokenizer with transformers",
            )
        self._control = copy.deepcopy(backend)
        self._control.no_truncation()
        self._data = copy.deepcopy(self._control)
        self._data.encode_special_tokens = True
        self._layout_of_roles = lru_cache(maxsize=256)(self._layout_of_roles_uncached)
        self._encode_short = lru_cache(maxsize=_SHORT_TEXTS_KEPT)(self._encode_uncached)
        added = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        self._added_token = re.compile("|".join(re.escape(token) for token in added) or "(?!)")
        self.has_place_for_tools = "tools" in str(self.tokenizer.chat_template)
        self._longest_token_characters = max(map(len, self._control.get_vocab()))
        self.vocabulary_size: int = self._control.get_vocab_size(with_added_tokens=True)

    @cached_property
    def fingerprint(self) -> bytes:
        """Of the tokenizer and the template."""
        told = f"{self.tokenizer.backend_tokenizer.to_str()}\n{self.tokenizer.chat_template}"
        return blake2b(told.encode(), digest_size=16).digest()

    def render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of the conversation, up to where the assistant's next words go.

        `tools` are OpenAI's tool objects. Raises `InvalidParameter` when the template refuses the messages
        (some demand that roles alternate).
        """
        if tools or any(message.tool_calls or message.tool_call_id for message in messages):
            layout = self._layout(self.outline(messages, tools))
        else:
            layout = self._layout_of_roles(tuple(message.role for message in messages), date.today())
        token_ids: list[int] = []
        for piece in layout:
            token_ids += self.encode(messages[piece].content) if isinstance(piece, int) else piece
        return token_ids

    def _layout_of_roles_uncached(self, roles: tuple[Role, ...], _today: date) -> tuple[Piece, ...]:
        """With marks for contents a template sees roles alone; some also write the date."""
        return self._layout(
            self.apply([{"role": role, "content": mark(position)} for position, role in enumerate(roles)], [])
        )

    def _layout(self, outline: str) -> tuple[Piece, ...]:
        """The template's own tokens, and between them the positions of the messages whose content goes there."""
        return tuple(
            int(piece) if position % 2 else self.encode_control(piece)
            for position, piece in enumerate(MARKED.split(outline))
        )

    def outline(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """The template's text for these messages, with marks in place of their contents.

        Raises `InvalidParameter` when the template refuses them.
        """
        marked = [self._marked(message, position) for position, message in enumerate(messages)]
        return self.apply(marked, self._spelt_out(list(tools)))

    def apply(self, marked: list[dict[str, Any]], tools: list[Any]) -> str:
        """The template's text for messages as it expects them. Raises `InvalidParameter`."""
        if tools and not self.has_place_for_tools:
            marked = _with_tools_prompt(marked, tools)
        try:
            text: str = self.tokenizer.apply_chat_template(
                marked, tools=tools or None, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise InvalidParameter(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        return text

    def _marked(self, message: Message, position: int) -> dict[str, Any]:
        """As templates expect it, with a mark in place of the content."""
        marked: dict[str, Any] = {"role": message.role, "content": mark(position)}
        if message.tool_calls:
            marked["tool_calls"] = [
                {
                    "id": self._spelt_out(call.id),
                    "type": "function",
                    "function": {
                        "name": self._spelt_out(call.name),
                        "arguments": self._spelt_out(_parsed(call.arguments)),
                    },
                }
                for call in message.tool_calls
            ]
            if not message.content:
                marked["content"] = ""  # Many templates part content and calls by a line break.
            if not self.has_place_for_tools:
                marked["content"] = (marked["content"] + _hermes_calls(marked["tool_calls"])).lstrip("\n")
        if message.tool_call_id:
            marked["tool_call_id"] = self._spelt_out(message.tool_call_id)
        return marked

    def _spelt_out(self, value: Any) -> Any:
        """JSON from outside with its control tokens broken up, since it is tokenised with the template's own text."""
        if isinstance(value, str):
            unmarked = value.replace(_MARK_BEGINS, "")
            return self._added_token.sub(lambda found: found[0][0] + "\u200b" + found[0][1:], unmarked)
        if isinstance(value, list):
            return [self._spelt_out(item) for item in value]
        if isinstance(value, dict):
            return {self._spelt_out(key): self._spelt_out(item) for key, item in value.items()}
        return value

    def tools_prompt(self, tools: Sequence[dict[str, Any]]) -> str:
        """What tells a model of tools whose template has no place for them."""
        return _tools_prompt(self._spelt_out(list(tools)))

    def encode_control(self, text: str) -> tuple[int, ...]:
        """The template's own text: control tokens in it are obeyed."""
        # Other than `encode`, this lets other threads run meanwhile.
        return tuple(self._control.encode_batch([text], add_special_tokens=False)[0].ids)

    def encode(self, text: str) -> list[int]:
        """Text as data: control tokens in it are spelt out, not obeyed."""
        if len(text) > _SHORT_CHARACTERS:
            return list(self._encode_uncached(text))
        return list(self._encode_short(text))

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        if len(text) > _OFFSETS_CHARACTERS:
            return tuple(self._data.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        return tuple(self._data.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._control.decode(list(token_ids), skip_special_tokens=True)
        return text

    def count_tokens(self, text: str) -> int:
        return len(self.encode(text))

    def least_tokens(self, text: str) -> int:
        """No fewer tokens than these, told without tokenising."""
        return len(text) // self._longest_token_characters

    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:
        offsets: Sequence[tuple[int, int]] = self._data.encode(text, add_special_tokens=False).offsets
        return offsets


def mark(position: int) -> str:
    return _MARK.format(position)


def _tools_prompt(tools: list[Any]) -> str:
    return _TOOLS_PROMPT.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))


def _with_tools_prompt(marked: list[dict[str, Any]], tools: list[Any]) -> list[dict[str, Any]]:
    """The tools described in the system message."""
    described = _tools_prompt(tools)
    if marked and marked[0]["role"] == "system":
        return [marked[0] | {"content": marked[0]["content"] + "\n\n" + described}, *marked[1:]]
    return [{"role": "system", "content": described}, *marked]


def _hermes_calls(calls: list[dict[str, Any]]) -> str:
    return "".join(
        f"\n<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>" for call in calls
    )


def _parsed(arguments: str) -> Any:
    """Templates print an object; what is no JSON, or too deep to be printed, goes in as the text that it is."""
    try:
        value = json.loads(arguments)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return arguments
    return value if json_depth(value) <= _DEEPEST_ARGUMENTS else arguments


def _load_tokenizer(model: str) -> Any:
    """`tokenizer.json` where there is one: `AutoTokenizer` imports torch first, which takes ten times as long."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(model)
    except (OSError, ValueError):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model)

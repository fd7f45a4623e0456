"""What each conversation should hold, kept in the plainest way, and what its prompt should then be.

Beside the product it knows who said what, which documents are alive, and which passages a search has returned
where. Whole numbers, strings and tuples; nothing of the ledger, its keys or its bytes.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from retrieval.types import Passage
from server.context.fence import fence_of
from server.context.template import ChatTemplate, Message, ToolCall
from server.sections.prompt import PromptSettings

Line = tuple[Any, ...]
"""A conversation up to one of its messages: who, where, system message, tools, then each message's `plain`."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message as its prompt should have it."""

    role: str
    content: tuple[int, ...] = ()
    passages: tuple[tuple[int, int], ...] = ()
    """Number and key of each."""
    pointed: tuple[int, ...] = ()
    numbered_to: int = 0
    dropped: bool = False


@dataclass(slots=True)
class Shelf:
    """Documents of one chunk each; a changed one gets a new key, as the store gives it."""

    texts: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By key: the chunk's id and its text, of living ones."""
    keys: Iterable[int] = field(default_factory=lambda: count(1))

    def put(self, name: str, words: str) -> None:
        self.delete(name)
        self.texts[next(iter(self.keys))] = (name, words)

    def delete(self, name: str) -> None:
        self.texts = {key: found for key, found in self.texts.items() if found[0] != name}

    def passages(self, names: Sequence[str]) -> list[Passage]:
        key_of = {name: key for key, (name, _) in self.texts.items()}
        return [
            Passage(
                name, name, f"{name}.md", name, (name,), self.texts[key_of[name]][1], 9, 0.5, key_of[name]
            )
            for name in dict.fromkeys(names)
            if name in key_of
        ]

    def gone(self, keys: Iterable[int]) -> set[int]:
        return {key for key in keys if key not in self.texts}

    def line(self, number: int, key: int) -> str:
        name, words = self.texts[key]
        return f"[{number}] {name}: {fence_of(PromptSettings()).text(words)}\n"


def plain(message: Message) -> tuple[Any, ...]:
    """What two clients send alike that mean the same."""
    text = unicodedata.normalize("NFC", message.content.strip().replace("\r\n", "\n").replace("\r", "\n"))
    calls = tuple((call.name, _plain_json(call.arguments)) for call in message.tool_calls)
    return (message.role, text, calls)


def _plain_json(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return "not JSON: " + text


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        return {"name": call.name, "arguments": json.loads(call.arguments)}
    except ValueError:
        return {"name": call.name, "arguments": call.arguments}


def lines(root: Line, messages: Sequence[Message]) -> list[Line]:
    said = tuple(map(plain, messages))
    return [(*root, *said[: n + 1]) for n in range(len(said))]


class Writer:
    """Writes prompts as ChatML, piece by piece."""

    def __init__(self, template: ChatTemplate, layout: PromptSettings, shelf: Shelf) -> None:
        self._template = template
        self._layout = layout
        self._shelf = shelf

    def text(self, token_ids: Sequence[int]) -> str:
        """With its control tokens, for people."""
        text: str = self._template.tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    def prompt(self, system: str | None, tools: Sequence[dict[str, Any]], said: Sequence[Held]) -> list[int]:
        control = self._template.encode_control
        token_ids = [*control("<|im_start|>system\n"), *self._template.encode(system or self._layout.system)]
        if tools:
            token_ids += control("\n\n" + self._template.tools_prompt(tools))
        token_ids += control("<|im_end|>\n")
        numbers: set[int] = set()
        for held in said:
            if not held.dropped:
                token_ids += control(f"<|im_start|>{held.role}\n")
                token_ids += self._ahead(held, numbers) + list(held.content)
                token_ids += control("<|im_end|>\n")
        return [*token_ids, *control("<|im_start|>assistant\n")]

    def _ahead(self, held: Held, numbers: set[int]) -> list[int]:
        """Passages as the documents are now, then the pointer; `numbers`: those that stand further up."""
        token_ids: list[int] = []
        if held.passages:
            token_ids += self._template.encode(self._layout.passages_header + "\n")
            for number, key in held.passages:
                token_ids += self._template.encode(self._shelf.line(number, key))
        pointed = [f"[{number}]" for number in held.pointed if number in numbers]
        if pointed:
            pointer = self._layout.pointer.replace("{numbers}", ", ".join(pointed))
            token_ids += self._template.encode(pointer + "\n")
        numbers.update(number for number, _ in held.passages)
        return token_ids

    def question(self, text: str, *, grounded: bool) -> tuple[int, ...]:
        layout = self._layout
        worded = f"\n{layout.question_header}{text}{layout.question_footer}" if grounded else text
        return tuple(self._template.encode(worded))

    def foreign(self, message: Message) -> Held:
        """A message that no turn of ours has made."""
        calls = "".join(
            f"\n<tool_call>\n{json.dumps(_call(call), ensure_ascii=False)}\n</tool_call>"
            for call in message.tool_calls
        )
        if not message.content:
            calls = calls.removeprefix("\n")
        content = [*self._template.encode(message.content), *self._template.encode_control(calls)]
        return Held(message.role, tuple(content))

    def foreign_history(
        self, before: Sequence[Held], messages: Sequence[Message], max_tokens: int
    ) -> list[Held]:
        """The latest of them that fit, beginning with a user's unless they go on with `before`; the others dropped."""
        said = [self.foreign(message) for message in messages]
        goes_on = not before or not before[-1].dropped
        for first in range(len(said) + 1):
            tokens = sum(len(held.content) for held in said[first:])
            whole = (first == 0 and goes_on) or first == len(said) or said[first].role == "user"
            if tokens <= max_tokens and whole:
                return [Held(held.role, dropped=True) for held in said[:first]] + said[first:]
        raise AssertionError("nothing always fits")


def standing(said: Sequence[Held], shelf: Shelf) -> list[Held]:
    """Without passages of documents that changed, and those whose number an earlier message has taken since.

    A message is held as it was last asked. So what followed another asking of it may number its passages alike.
    """
    left, taken = [], 0
    for held in said:
        passages = tuple(
            (number, key) for number, key in held.passages if key in shelf.texts and number > taken
        )
        left.append(replace(held, passages=passages))
        taken = max(taken, held.numbered_to)
    return left

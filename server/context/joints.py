"""What the template writes between the contents of neighbouring messages: the joints of a prompt that only grows.

A template is append-only when each joint follows from the roles on its two sides. Then a turn's prompt begins with the
turn before, token by token, and the engine's own reply tokens stand where the template would write them. Most
templates are; this is checked when the server starts, by rendering short conversations with marks for contents.

Divergences from what a template itself writes, for one that is not ("nearest"):
- What leads to an assistant's words is what the engine was prompted with, in earlier turns too: some templates
  write a space or an empty reasoning block there once the reply is history.
- The opening is that of a conversation of one message: some templates move the system message or the tools to the
  user's last message, which would change all that follows.
- A system message that the template refuses stands ahead of the user's first words, a blank line between them.
- A reply stays as the engine wrote it: some templates leave the reasoning out of earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Literal

from server.context.template import MARKED, ChatTemplate, Message, Role, ToolCall, mark
from server.errors import InvalidParameter

Kind = Literal["append-only", "nearest", "plain"]

Opening = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids ahead of and behind the system message's content; without one, none and all."""

_OPENINGS_KEPT = 32
_LONGEST_KEPT_TOOLS_CHARACTERS = 65_536

_ROLES: dict[str, Role] = {"u": "user", "a": "assistant", "t": "tool"}
"""A probe is a word of these letters and of `c`, an assistant that calls a tool and says nothing."""

_SOURCES: dict[tuple[Role, Role], tuple[str, int]] = {
    ("user", "assistant"): ("u", 0),
    ("assistant", "assistant"): ("ua", 1),
    ("tool", "assistant"): ("uct", 2),
    ("assistant", "user"): ("uau", 1),
    ("assistant", "tool"): ("uat", 1),
    ("user", "user"): ("uu", 0),
    ("tool", "user"): ("uctu", 2),
    ("tool", "tool"): ("uctt", 2),
}
"""Which probe tells a joint, and behind which of its messages. What leads to an assistant is told at a probe's end,
where the engine's own words go."""

_SHAPES = (
    *("u", "ua", "uau", "uauau", "uauauau", "uu", "uaau", "au"),
    *("uct", "uctt", "uctu", "uctau", "uctct", "uauctau"),
)
_SHAPES_WITH_TOOLS = ("u", "uau", "uct", "uctau")

_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
_CALLS = (
    ToolCall("abcdefgh1", "look_up", '{"word": "tea"}'),
    ToolCall("zyxwvuts2", "find", '{"number": 7}'),
)
"""Nine letters and digits make an id: Mistral's templates refuse others."""

_SHOWN_CHARACTERS = 40


class Joints:
    """The joints of `template`, checked against what it writes for short conversations. Thread-safe."""

    kind: Kind
    """`nearest`: frames are as close to the template as a prompt that only grows can be. `plain`: there are none."""
    reason: str
    """Where and how the template departs from append-only, for people; empty when it does not."""
    end_of_reply: frozenset[int]
    """Control tokens that end a reply: they belong to the joint behind it, not to its content."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._kept_opening = lru_cache(maxsize=_OPENINGS_KEPT)(self._opening)
        self._texts = {
            pair: text
            for pair, source in _SOURCES.items()
            if (text := self._text_behind(*source)) is not None
        }
        self._token_ids = {pair: template.encode_control(text) for pair, text in self._texts.items()}
        self._ahead_of_calls = [
            text for text in (self._text_behind("uau", 0), self._texts.get(("user", "assistant"))) if text
        ]
        self._probes_calls = self._calls_text(_message("c"))
        self._takes_two_replies = self._outline(_conversation("uaau", False)) is not None
        self.end_of_reply = self._ends_of_reply()
        turn: set[tuple[Role, Role]] = {("user", "assistant"), ("assistant", "user")}
        if not turn <= self._texts.keys() or self._opening_texts("user", False, []) is None:
            self.kind, self.reason = "plain", self._refusal()
        else:
            self.reason = self._departure()
            self.kind = "nearest" if self.reason else "append-only"

    def frame(
        self, roles: Sequence[Role], system: str, tools: Sequence[dict[str, Any]] = ()
    ) -> list[tuple[int, ...]] | None:
        """What stands around the contents of n messages, the system message not counted: n + 1 pieces of token ids.

        The first holds the system message's content (no message if it is empty) and the tools, and the day's date in
        some templates; the last ends where the assistant's next words go. None for an order of roles that this
        template has no fixed joints for; `ChatTemplate.render` renders it, or says why it is refused.
        """
        if self.kind == "plain" or not roles:
            return None
        neighbours = list(zip(roles, [*roles[1:], "assistant"], strict=True))
        if not self._takes_two_replies and ("assistant", "assistant") in neighbours[:-1]:
            return None
        joints = [joint for pair in neighbours if (joint := self._token_ids.get(pair)) is not None]
        if len(joints) < len(roles):
            return None
        try:
            opening = self._remembered_opening(roles[0], bool(system), tools)
        except (ValueError, RecursionError):  # Not to be written as JSON: left to `render` to refuse.
            return None
        if opening is None:
            return None
        ahead, behind = opening
        return [(*ahead, *self._template.encode(system), *behind) if system else behind, *joints]

    def calls(self, message: Message) -> list[int] | None:
        """Tokens of an assistant's tool calls as the template writes them behind its content.

        None where they cannot be told from what is around them, or stand in place of the content.
        """
        text = self._calls_text(message)
        return None if text is None else list(self._template.encode_control(text))

    def _calls_text(self, message: Message) -> str | None:
        if not message.tool_calls:
            return ""
        answer = Message("tool", "-", tool_call_id=message.tool_calls[0].id)
        pieces = self._pieces([Message("user", "-"), message, answer])
        behind = self._texts.get(("assistant", "tool"))
        ahead = next((text for text in self._ahead_of_calls if pieces and pieces[1].startswith(text)), None)
        if pieces is None or behind is None or ahead is None:
            return None
        written = pieces[1].removeprefix(ahead) + (pieces[2] if message.content else "")
        if not written.endswith(behind) or (message.content and pieces[1] != ahead):
            return None
        return written[: len(written) - len(behind)]

    def _remembered_opening(
        self, first: Role, has_system: bool, tools: Sequence[dict[str, Any]]
    ) -> Opening | None:
        written = json.dumps(list(tools)) if tools else ""
        if len(written) > _LONGEST_KEPT_TOOLS_CHARACTERS:
            return self._opening(first, has_system, written, date.today())
        return self._kept_opening(first, has_system, written, date.today())

    def _opening(self, first: Role, has_system: bool, tools: str, _today: date) -> Opening | None:
        texts = self._opening_texts(first, has_system, json.loads(tools) if tools else [])
        if texts is None:
            return None
        return self._template.encode_control(texts[0]), self._template.encode_control(texts[1])

    def _opening_texts(
        self, first: Role, has_system: bool, tools: list[dict[str, Any]]
    ) -> tuple[str, str] | None:
        """What stands ahead of and behind the system message's content."""
        own = self._own_opening_texts(first, has_system, tools)
        if own is not None or first != "user" or not (has_system or tools):
            return own
        template = self._template
        has_place = template.has_place_for_tools
        without_system = self._own_opening_texts(first, False, tools if has_place else [])
        if without_system is None:
            return None
        described = "" if has_place or not tools else template.tools_prompt(tools) + "\n\n"
        ahead = without_system[1]
        return (ahead, "\n\n" + described) if has_system else ("", ahead + described)

    def _own_opening_texts(
        self, first: Role, has_system: bool, tools: list[dict[str, Any]]
    ) -> tuple[str, str] | None:
        probe = {"user": "u", "assistant": "au"}.get(first)
        pieces = self._pieces(_conversation(probe, has_system), tools) if probe else None
        if pieces is None:
            return None
        return (pieces[0], pieces[1]) if has_system else ("", pieces[0])

    def _text_behind(self, probe: str, position: int) -> str | None:
        """Up to the next content; None when it also depends on what is called: its name, id or arguments."""
        texts = set()
        for call in _CALLS:
            messages = _conversation(probe, False, call)
            pieces = self._pieces(messages)
            if pieces is None:
                return None
            texts.add(pieces[1 + sum(map(_has_content, messages[:position]))])
        return texts.pop() if len(texts) == 1 else None

    def _pieces(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[str] | None:
        """The text around the contents; None unless the template writes each of them once, and in order."""
        text = self._outline(messages, tools)
        if text is None:
            return None
        expected = [position for position, message in enumerate(messages) if _has_content(message)]
        pieces = MARKED.split(text)
        return pieces[::2] if list(map(int, pieces[1::2])) == expected else None

    def _outline(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str | None:
        try:
            return self._template.outline(messages, tools)
        except InvalidParameter:
            return None

    def _ends_of_reply(self) -> frozenset[int]:
        tokenizer = self._template.tokenizer
        control = set(tokenizer.get_added_vocab().values())
        first = {ids[0] for (role, _), ids in self._token_ids.items() if role == "assistant" and ids}
        return frozenset({tokenizer.eos_token_id} - {None} | (first & control))

    def _refusal(self) -> str:
        try:
            self._template.outline(_conversation("uau", False))
        except InvalidParameter as refusal:
            return str(refusal)
        return "it does not write the content of every message once and in order"

    def _departure(self) -> str:
        """The first of the shapes that the template writes in another way than its joints."""
        if self._own_opening_texts("user", True, []) is None:
            return "it has no place for a system message: that is put ahead of the user's first words"
        for shapes, tools in ((_SHAPES, []), (_SHAPES_WITH_TOOLS, [_TOOL])):
            for has_system in (False, True):
                for shape in shapes:
                    messages = _conversation(shape, has_system)
                    joined = self._joined(messages, tools)
                    written = None if joined is None else self._outline(messages, tools)
                    if joined is not None and written is not None and joined != written:
                        roles = ", ".join(message.role for message in messages)
                        return f"for {roles} it writes {_difference(written, joined)}"
        return "it leaves the reasoning out of earlier replies" if self._forgets_reasoning() else ""

    def _joined(self, messages: Sequence[Message], tools: list[dict[str, Any]]) -> str | None:
        """The outline by joints."""
        has_system = messages[0].role == "system"
        said = messages[has_system:]
        opening = self._opening_texts(said[0].role, has_system, tools)
        if opening is None:
            return None
        joined = opening[0] + mark(0) + opening[1] if has_system else opening[1]
        following: list[Role] = [*(message.role for message in said[1:]), "assistant"]
        for position, (message, next_role) in enumerate(zip(said, following, strict=True), start=has_system):
            content = mark(position) if _has_content(message) else self._probes_calls
            joint = self._texts.get((message.role, next_role))
            if content is None or joint is None:
                return None
            joined += content + joint
        return joined

    def _forgets_reasoning(self) -> bool:
        thought = {"role": "assistant", "content": f"<think>\n{mark(9)}\n</think>\n\n{mark(1)}"}
        user = {"role": "user", "content": mark(0)}
        try:
            return mark(9) not in self._template.apply([user, thought, user], [])
        except InvalidParameter:
            return False


def _message(letter: str, call: ToolCall = _CALLS[0]) -> Message:
    if letter == "c":
        return Message("assistant", "", (call,))
    return Message(_ROLES[letter], "-", tool_call_id=call.id if letter == "t" else "")


def _conversation(probe: str, has_system: bool, call: ToolCall = _CALLS[0]) -> list[Message]:
    system = [Message("system", "-")] if has_system else []
    return system + [_message(letter, call) for letter in probe]


def _has_content(message: Message) -> bool:
    return bool(message.content) or not message.tool_calls


def _difference(written: str, joined: str) -> str:
    """Where the two part, and what each goes on with."""
    written, joined = (
        MARKED.sub(lambda found: f"<message {int(found[1]) + 1}>", text) for text in (written, joined)
    )
    same = next(
        (position for position, pair in enumerate(zip(written, joined, strict=False)) if len(set(pair)) > 1),
        min(len(written), len(joined)),
    )
    begins = max(0, same - _SHOWN_CHARACTERS // 2)
    shown, other = (text[begins : same + _SHOWN_CHARACTERS // 2] for text in (written, joined))
    return f"{shown!r} where its prompt for fewer messages has {other!r}"

"""Entries as token ids, between the template's joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from server.context.entry import Entry, pack, unpack
from server.context.joints import Joints
from server.context.template import ChatTemplate, Role
from server.sections.prompt import PromptSettings


@dataclass(frozen=True, slots=True)
class Draft:
    entries: tuple[Entry, ...]
    """One for each message; the first holds the opening."""
    token_ids: list[int]
    opening_tokens: int
    history_tokens: int
    """So many stand before anything of the question."""
    passages_end: int
    """So many with the passages that come with the question."""
    content_at: int
    """So many before the question's own words: these can be prefilled before it is asked."""


class Drafter:
    """Equal entries under equal roles give equal token ids, and those of a conversation's beginning come first."""

    def __init__(self, template: ChatTemplate, joints: Joints, settings: PromptSettings) -> None:
        self._template = template
        self._joints = joints
        self._settings = settings

    def draft(
        self,
        entries: Sequence[Entry],
        roles: Sequence[Role],
        asked_at: int,
        system: str,
        tools: Sequence[dict[str, Any]],
    ) -> Draft | None:
        """None when the template has no stable rendering of these messages."""
        there = [position for position, entry in enumerate(entries) if not entry.dropped]
        frame = self._joints.frame([roles[position] for position in there], system, tools)
        if frame is None:
            return None
        first, opening = entries[0], pack(frame[0])
        if roles[there[0]] == roles[0]:
            # It leads to the role that came first: a greeting may have been shed.
            opening = first.opening or opening
            first = msgspec.structs.replace(first, opening=opening)
        token_ids = unpack(opening)
        opening_tokens = history_tokens = passages_end = content_at = len(token_ids)
        numbers: set[int] = set()
        for joint, position in zip(frame[1:], there, strict=True):
            entry = entries[position]
            if position == asked_at:
                history_tokens = len(token_ids)
            token_ids += self._passages(entry)
            if position == asked_at:
                passages_end = len(token_ids)
            token_ids += self._pointer([number for number in entry.pointed if number in numbers])
            if position == asked_at:
                content_at = len(token_ids)
            token_ids += unpack(entry.content)
            token_ids += joint
            numbers.update(passage.number for passage in entry.passages)
        return Draft(
            (first, *entries[1:]), token_ids, opening_tokens, history_tokens, passages_end, content_at
        )

    def _passages(self, entry: Entry) -> list[int]:
        if not entry.passages:
            return []
        token_ids = self._template.encode(self._settings.passages_header + "\n")
        for passage in entry.passages:
            token_ids += unpack(passage.tokens)
        return token_ids

    def _pointer(self, numbers: Sequence[int]) -> list[int]:
        if not numbers or not self._settings.pointer:
            return []
        named = ", ".join(f"[{number}]" for number in numbers)
        return self._template.encode(self._settings.pointer.replace("{numbers}", named) + "\n")

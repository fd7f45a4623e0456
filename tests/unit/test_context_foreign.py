from __future__ import annotations

import pytest

from server.context.entry import n_tokens, unpack
from server.context.foreign import Foreign
from server.context.joints import Joints
from server.context.template import ChatTemplate, Message, ToolCall

CALL = Message("assistant", "", (ToolCall("call00001", "find", '{"a": 1}'),))
TURNS = [
    *(Message("user", "one two three"), Message("assistant", "four five six")),
    *(Message("user", "seven eight"), CALL, Message("tool", "nine"), Message("assistant", "ten")),
]


@pytest.fixture(scope="module")
def joints(template: ChatTemplate) -> Joints:
    return Joints(template)


def dropped(template: ChatTemplate, joints: Joints, max_tokens: int, after_dropped: bool = False) -> int:
    entries = Foreign(template, joints, max_tokens).entries(
        TURNS[0 if not after_dropped else 1 :], after_dropped=after_dropped
    )
    assert entries is not None
    gone = [entry.dropped for entry in entries]
    assert gone == sorted(gone, reverse=True)
    assert all(not entry.content for entry in entries if entry.dropped)
    assert sum(n_tokens(entry.content) for entry in entries) <= max_tokens
    return sum(gone)


def test_messages_stand_as_they_are(template: ChatTemplate, joints: Joints) -> None:
    foreign = Foreign(template, joints, 1_000)
    entries = foreign.entries(TURNS)
    assert entries is not None
    assert [template.decode(unpack(entry.content)) for entry in entries[:3]] == [
        message.content for message in TURNS[:3]
    ]
    assert "find" in template.decode(unpack(entries[3].content))
    assert foreign.entries(TURNS) == entries
    assert not any(entry.passages or entry.numbered_to for entry in entries)


def test_whole_turns_are_dropped_the_oldest_first(template: ChatTemplate, joints: Joints) -> None:
    entries = Foreign(template, joints, 1_000).entries(TURNS)
    assert entries is not None
    sizes = [n_tokens(entry.content) for entry in entries]
    assert dropped(template, joints, sum(sizes)) == 0
    assert dropped(template, joints, sum(sizes) - 1) == 2
    assert dropped(template, joints, sum(sizes[2:])) == 2
    assert dropped(template, joints, sum(sizes[2:]) - 1) == len(TURNS)
    assert dropped(template, joints, 0) == len(TURNS)


def test_what_is_left_of_a_dropped_turn_goes_with_it(template: ChatTemplate, joints: Joints) -> None:
    assert dropped(template, joints, 1_000, after_dropped=True) == 1


def test_no_messages_are_no_entries(template: ChatTemplate, joints: Joints) -> None:
    assert Foreign(template, joints, 10).entries([]) == []
    assert Foreign(template, joints, 10).entries([], after_dropped=True) == []


def noting(monkeypatch: pytest.MonkeyPatch, template: ChatTemplate) -> list[str]:
    """What is tokenised from here on."""
    tokenised: list[str] = []
    encode = template.encode

    def note(text: str) -> list[int]:
        tokenised.append(text)
        return encode(text)

    monkeypatch.setattr(template, "encode", note)
    return tokenised


def test_a_text_far_too_long_is_not_tokenised(
    template: ChatTemplate, joints: Joints, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised = noting(monkeypatch, template)
    entries = Foreign(template, joints, 100).entries([Message("user", "word " * 1_000_000)])
    assert entries is not None
    assert entries[0].dropped
    assert not tokenised


def test_ten_thousand_messages_cost_no_more_than_what_fits(
    template: ChatTemplate, joints: Joints, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised = noting(monkeypatch, template)
    entries = Foreign(template, joints, 100).entries([Message("user", f"word {n}") for n in range(10_000)])
    assert entries is not None
    assert len(entries) == 10_000
    assert len(tokenised) <= 101


def test_calls_that_the_template_does_not_let_us_write_are_refused(
    template: ChatTemplate, joints: Joints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joints, "calls", lambda message: None)
    assert Foreign(template, joints, 1_000).entries(TURNS) is None

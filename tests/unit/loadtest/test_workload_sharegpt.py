from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.errors import WorkloadError
from loadtest.workload.conversation import Message
from loadtest.workload.read import read_workload
from loadtest.workload.workload import Workload


def read(folder: Path, entries: object) -> Workload:
    path = folder / "sharegpt.json"
    path.write_text(json.dumps(entries, indent=1))
    return read_workload(path)


def said(*messages: tuple[str, str | None]) -> list[dict[str, str | None]]:
    return [{"from": sender, "value": value} for sender, value in messages]


def test_human_messages_are_turns_and_replies_their_reference(tmp_path: Path) -> None:
    workload = read(
        tmp_path,
        [
            {"id": "a_0", "conversations": said(("human", "one"), ("gpt", "reply"), ("human", "two"))},
            {"conversations": said(("system", "Be brief."), ("user", "q"), ("chatgpt", "r"))},
            {"conversation_id": 3, "conversation": [{"role": "user", "content": "w"}]},
        ],
    )
    first, second, third = workload.conversations
    assert [(turn.user, turn.agent) for turn in first.turns] == [("one", "reply"), ("two", None)]
    assert second.preamble == (Message("system", "Be brief."),)
    assert [one.conversation_id for one in workload.conversations] == ["a_0", "entry-2", "3"]
    assert third.turns[0].user == "w"
    assert workload.skipped == ()
    assert workload.remarks == ()


def test_consecutive_messages_of_one_side_are_joined(tmp_path: Path) -> None:
    messages = said(("human", "a"), ("human", "b"), ("gpt", "c"), ("gpt", None), ("gpt", "d"), ("human", "e"))
    (conversation,) = read(tmp_path, [{"conversations": messages}]).conversations
    assert [(turn.user, turn.agent) for turn in conversation.turns] == [("a\n\nb", "c\n\nd"), ("e", None)]


def test_when_the_assistant_opens_then_its_messages_are_dropped_and_counted(tmp_path: Path) -> None:
    workload = read(
        tmp_path,
        [
            {"conversations": said(("gpt", "Hello."), ("gpt", "Well?"), ("human", "q"))},
            {"conversations": said(("human", "p"))},
        ],
    )
    assert [turn.user for one in workload.conversations for turn in one.turns] == ["q", "p"]
    assert workload.dropped_openings == 1
    assert workload.remarks == ("1 conversations opened with the assistant; these messages were dropped.",)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (said(), "no human message"),
        (said(("gpt", "alone")), "no human message"),
        (said(("human", " \n")), "a human message is empty"),
        (said(("human", "a"), ("gpt", "b"), ("human", None)), "a human message is empty"),
        (said(("human", "a"), ("tool", "b")), "a message from 'tool'"),
        (said(("human", "a"), ("system", "b")), "a system message after the first human message"),
    ],
)
def test_an_entry_that_cannot_be_held_is_skipped_and_counted(
    tmp_path: Path, messages: list[dict[str, str | None]], reason: str
) -> None:
    workload = read(
        tmp_path, [{"conversations": said(("human", "fine"))}, {"id": "x", "conversations": messages}]
    )
    assert [one.conversation_id for one in workload.conversations] == ["entry-1"]
    (skipped,) = workload.skipped
    assert skipped.reason == reason
    assert skipped.place.startswith("entry 2 (line ")
    assert workload.remarks == (f"1 of 2 entries were skipped; the first is {skipped.place}: {reason}.",)


def test_when_every_entry_is_skipped_then_there_are_no_turns(tmp_path: Path) -> None:
    with pytest.raises(
        WorkloadError, match=r"no turns in it \(2 of 2 entries were skipped; the first is entry 1"
    ):
        read(tmp_path, [{"conversations": []}, {"conversations": []}])


def test_an_empty_list_has_no_turns(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="no turns in it"):
        read(tmp_path, [])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('"text"', "Expected `object`"),
        ("{}", "none of 'conversations'"),
        ('{"conversations": [], "messages": []}', "2 of 'conversations'"),
        ('{"conversations": "text"}', "Expected `array"),
        ('{"conversations": [{"value": "x"}]}', "without 'from'"),
        (
            '{"conversations": [{"from": "human", "value": ["x"]}]}',
            r"Expected `str.*conversations\[0\].value",
        ),
        ('{"id": {}, "conversations": []}', "id"),
    ],
)
def test_an_entry_of_another_shape_is_an_error_at_its_line(tmp_path: Path, entry: str, reason: str) -> None:
    fine = '{"conversations":\n [{"from": "human", "value": "q"}]}'
    path = tmp_path / "w.json"
    path.write_text(f"[{fine},\n{fine},\n{entry}\n]")
    with pytest.raises(WorkloadError, match=reason) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{path}:5: ")
    assert "Expected in entry 3 {" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n{"conversations": []},\n{"conversations": ]\n]', 3),
        ('[\n{"conversations": []},\n', 2),
        ("[\n" + "[" * 100_000, 2),
        ("[{}]\n\n1", 3),
    ],
)
def test_json_that_is_broken_is_an_error_at_its_line(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "w.json"
    path.write_text(content)
    with pytest.raises(WorkloadError, match=r"Expected a list of \{") as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_entries_may_stand_on_lines(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text('{"conversations": [{"from": "human", "value": "q"}]}\n\n{"conversations": []}\n')
    workload = read_workload(path)
    assert len(workload.conversations) == 1
    assert workload.skipped[0].place == "entry 2 (line 3)"

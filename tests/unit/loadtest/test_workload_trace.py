from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.errors import WorkloadError
from loadtest.workload.conversation import Conversation
from loadtest.workload.read import read_workload


def read(folder: Path, *lines: dict[str, Any]) -> tuple[Conversation, ...]:
    path = folder / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_workload(path).conversations


def words_in_common(one: str, other: str) -> int:
    pairs = zip(one.split(), other.split(), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def test_a_line_is_a_conversation_of_one_turn_at_its_time(tmp_path: Path) -> None:
    first, second = read(
        tmp_path,
        {"timestamp": 27_482, "input_length": 20, "output_length": 52, "hash_ids": [46], "unknown": 1},
        {"timestamp": 30_535.5, "input_length": 700, "output_length": 0},
    )
    assert (first.conversation_id, first.due_s) == ("line-1", 0.0)
    assert (second.conversation_id, second.due_s) == ("line-2", 3.0535)
    assert len(first.turns[0].user.split()) == 20
    assert len(second.turns[0].user.split()) == 700
    assert (first.turns[0].max_tokens, second.turns[0].max_tokens) == (52, 1)


def test_equal_ids_give_equal_text_and_others_do_not(tmp_path: Path) -> None:
    conversations = read(
        tmp_path,
        {"input_length": 1_300, "hash_ids": [4, 9, 7]},
        {"input_length": 1_600, "hash_ids": [4, 9, 12, 3]},
        {"input_length": 600, "hash_ids": [5, 9]},
        {"input_length": 1_100, "hash_ids": [4, 9, 7]},
    )
    a, b, c, d = (one.turns[0].user for one in conversations)
    assert words_in_common(a, b) == 1_024
    assert words_in_common(a, c) == 0
    assert a.split()[512:600] == c.split()[512:600]
    assert a.startswith(d)


def test_prompts_without_ids_have_no_prefix_in_common(tmp_path: Path) -> None:
    texts = [one.turns[0].user for one in read(tmp_path, *[{"input_length": 50}] * 500)]
    assert len(set(texts)) == 500
    assert max(words_in_common(texts[0], text) for text in texts[1:]) < 4


def test_lines_of_a_session_are_the_turns_of_one_conversation(tmp_path: Path) -> None:
    one, other = read(
        tmp_path,
        {"session_id": "s", "timestamp": 1_000, "input_length": 30, "output_length": 5, "delay": None},
        {"session_id": 2, "timestamp": 1_500, "text_input": "What is prefill?"},
        {"session_id": "s", "timestamp": 9_000, "delay": 2_500, "input_length": 10},
        {"session_id": "s", "input_length": 10},
    )
    assert (one.conversation_id, one.due_s, other.conversation_id, other.due_s) == ("s", 0.0, "2", 0.5)
    assert [turn.think_s for turn in one.turns] == [None, 2.5, None]
    assert [len(turn.user.split()) for turn in one.turns] == [30, 10, 10]
    assert other.turns[0].user == "What is prefill?"


def test_conversations_come_in_the_order_of_arrival(tmp_path: Path) -> None:
    conversations = read(
        tmp_path,
        {"timestamp": 500, "text_input": "b"},
        {"timestamp": 100, "text_input": "a"},
        {"timestamp": 500, "text_input": "c"},
    )
    assert [(one.turns[0].user, one.due_s) for one in conversations] == [("a", 0.0), ("b", 0.4), ("c", 0.4)]


def test_without_time_stamps_there_are_no_due_times(tmp_path: Path) -> None:
    assert [one.due_s for one in read(tmp_path, {"input_length": 1}, {"input_length": 2})] == [None, None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"timestamp": 1}, "exactly one of `input_length` and `text_input`"),
        ({"timestamp": 1, "input_length": 4, "text_input": "x"}, "exactly one of"),
        ({"timestamp": 1, "text_input": "x", "hash_ids": [1]}, "without `input_length`"),
        ({"timestamp": 1, "text_input": ""}, "length >= 1"),
        ({"timestamp": 1, "input_length": 0}, ">= 1"),
        ({"timestamp": 1, "input_length": 1.5}, "Expected `int"),
        ({"timestamp": 1, "input_length": 10**12}, "<= 250000000"),
        ({"timestamp": 1, "input_length": 5, "output_length": -1}, ">= 0"),
        ({"timestamp": -1, "input_length": 5}, ">= 0"),
        ({"timestamp": "now", "input_length": 5}, "Expected `float"),
        (
            {"timestamp": 1, "input_length": 600, "hash_ids": [1]},
            "2 blocks of 512 tokens, but `hash_ids` has 1",
        ),
        ({"timestamp": 1, "input_length": 5, "hash_ids": ["a"]}, "Expected `int`"),
        ({"timestamp": 1, "input_length": 5, "delay": 10}, "a `delay` without a turn before it"),
        ({"timestamp": 9, "session_id": "s", "input_length": 5}, "`timestamp` and no `delay`"),
        ({"input_length": 5}, "no `timestamp`, unlike the lines before"),
        ({"timestamp": 1, "messages": []}, "exactly one of"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    with pytest.raises(WorkloadError, match=reason) as caught:
        read(tmp_path, {"timestamp": 1, "session_id": "s", "input_length": 5}, line)
    assert f"{tmp_path / 'trace.jsonl'}:2: " in str(caught.value)
    assert 'Expected {"timestamp": 0' in str(caught.value)


def test_a_time_stamp_after_lines_without_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r":2: a `timestamp`, unlike the lines before"):
        read(tmp_path, {"input_length": 5}, {"timestamp": 1, "input_length": 5})


def test_a_trace_of_too_many_tokens_is_refused_before_its_text_is_made(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r":2: .*more than 250,000,000 tokens.*Cut the trace"):
        read(tmp_path, {"input_length": 1}, {"input_length": 250_000_000})

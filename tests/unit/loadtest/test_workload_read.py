from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loadtest.errors import WorkloadError
from loadtest.workload.conversation import Message
from loadtest.workload.read import MAX_FILE_BYTES, WorkloadKind, read_workload


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_is_one_question_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "q.txt", "\ufeffWhat is TTFT?\r\n\r\n\u00a0\n  Was ist das für ein Wort? \n")
    workload = read_workload(path)
    assert [[turn.user for turn in one.turns] for one in workload.conversations] == [
        ["What is TTFT?"],
        ["Was ist das für ein Wort?"],
    ]
    assert [one.conversation_id for one in workload.conversations] == ["line-1", "line-4"]
    assert workload.remarks == ()


def test_every_kind_of_json_line_is_read(tmp_path: Path) -> None:
    lines = [
        {"question": "q?"},
        {
            "id": "c",
            "collection": "x",
            "turns": [
                {"user": "one", "agent": "a", "extra": 1},
                {"user": "two", "max_tokens": 7, "think_s": 1.5},
            ],
        },
        {
            "id": 7,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "reference"},
                {"role": "user", "content": "second"},
            ],
        },
    ]
    path = write(tmp_path, "w.jsonl", "\n\n".join(map(json.dumps, lines)))
    question, turns, messages = read_workload(path).conversations
    assert (question.conversation_id, [t.user for t in question.turns]) == ("line-1", ["q?"])
    assert (turns.conversation_id, [t.user for t in turns.turns]) == ("c", ["one", "two"])
    assert [(t.max_tokens, t.think_s) for t in turns.turns] == [(None, None), (7, 1.5)]
    assert messages.conversation_id == "7"
    assert messages.preamble == (Message("system", "Be brief."),)
    assert [(t.user, t.agent) for t in messages.turns] == [("first", "reference"), ("second", None)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "truncated"),
        ("[1]", "not an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompt": "x"}', "none of the keys"),
        ('{"question": "x", "turns": []}', "'question' and 'turns'"),
        ('{"question": ""}', "length >= 1"),
        ('{"question": 3}', "Expected `str`"),
        ('{"question": NaN}', "malformed"),
        ('{"turns": []}', "length >= 1"),
        ('{"turns": [{"agent": "a"}]}', "missing required field `user`"),
        ('{"turns": [{"user": ""}]}', r"\$.turns\[0\].user"),
        ('{"turns": [{"user": "a"}, {"user": "b", "max_tokens": 0}]}', r"at least 1 - at `\$.turns\[1\]`"),
        ('{"turns": [{"user": "a"}, {"user": "b", "think_s": -1}]}', r"at least 0 - at `\$.turns\[1\]`"),
        ('{"turns": [{"user": "a", "think_s": NaN}]}', "malformed"),
        ('{"turns": [{"user": "a", "think_s": 1e999}]}', "out of range"),
        ('{"messages": []}', "length >= 1"),
        ('{"messages": [{"role": "system", "content": "s"}]}', "no user message"),
        ('{"messages": [{"role": "tool", "content": "s"}]}', "Invalid enum value 'tool'"),
        ('{"messages": [{"role": "assistant", "content": "s"}]}', "before the first user message"),
        ('{"messages": [{"role": "user", "content": ""}]}', "a user message is empty"),
        (
            '{"messages": [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]}',
            "after the first user message",
        ),
        (b'{"question": "\xff"}', "utf-8"),
        (b'{"question": "\\ud800"}', "truncated|surrogate"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(tmp_path: Path, line: str | bytes, reason: str) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, "w.jsonl", b'{"question": "fine"}\n\n' + raw + b"\n")
    with pytest.raises(WorkloadError, match=reason) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert 'Expected {"question"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_when_the_first_line_is_bad_then_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "w.jsonl", '\n{"question"\n{"question": "fine"}')
    with pytest.raises(WorkloadError, match=r"w\.jsonl:2: .*Expected"):
        read_workload(path)


def test_a_text_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "q.txt", b"fine\n\xff\xfe\n")
    with pytest.raises(WorkloadError, match=r"q\.txt:2: .*in UTF-8"):
        read_workload(path)


@pytest.mark.parametrize("name", ["q.txt", "w.jsonl", "w.ndjson", "w.json"])
@pytest.mark.parametrize("content", ["", "\n  \n", "\ufeff\n"])
def test_a_file_without_turns_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(WorkloadError, match="no turns in it"):
        read_workload(write(tmp_path, name, content))


def test_a_text_file_of_unicode_space_alone_has_no_turns(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="no turns in it"):
        read_workload(write(tmp_path, "q.txt", "\u00a0\n\u3000\n"))


def test_an_unknown_suffix_and_a_missing_file_are_errors_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"\.csv.*Use \.txt"):
        read_workload(write(tmp_path, "w.csv", "a"))
    with pytest.raises(WorkloadError, match=r"No such file.*Name a file"):
        read_workload(tmp_path / "absent.txt")
    with pytest.raises(WorkloadError, match=r"null.*Name a file"):
        read_workload(Path("a\0.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(WorkloadError, match=r"a directory\. Name a file"):
        read_workload(tmp_path / "folder.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(WorkloadError, match="not a regular file"):
        read_workload(tmp_path / "pipe.txt")


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "q.txt", "What?")
    os.truncate(path, MAX_FILE_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(WorkloadError, match="at most 1,073,741,824"):
        read_workload(path)


@pytest.mark.parametrize(
    ("name", "content", "user"),
    [
        ("w.json", '[{"conversations": [{"from": "human", "value": "a list"}]}]', "a list"),
        ("w.json", '{"question": "lines"}', "lines"),
        ("w.jsonl", '{"conversations": [{"from": "human", "value": "sharegpt"}]}', "sharegpt"),
        ("w.jsonl", '{"conversation": [{"role": "user", "content": "wildchat"}]}', "wildchat"),
        ("w.jsonl", '{"text_input": "trace", "timestamp": 5}', "trace"),
        ("W.TXT", '{"question": "text"}', '{"question": "text"}'),
    ],
)
def test_the_kind_is_found_by_suffix_and_first_line(
    tmp_path: Path, name: str, content: str, user: str
) -> None:
    assert read_workload(write(tmp_path, name, content)).conversations[0].turns[0].user == user


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("questions", "What?"),
        ("conversations", '{"question": "What?"}'),
        ("sharegpt", '[{"messages": [{"role": "user", "content": "What?"}]}]'),
        ("sharegpt", '{"messages": [{"role": "user", "content": "What?"}]}'),
        ("trace", '{"text_input": "What?"}'),
    ],
)
def test_when_the_kind_is_named_then_the_suffix_does_not_matter(
    tmp_path: Path, kind: WorkloadKind, content: str
) -> None:
    path = write(tmp_path, "workload", content)
    assert read_workload(path, kind).conversations[0].turns[0].user == "What?"


def test_an_unknown_kind_is_an_error_that_lists_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="auto, questions, conversations, sharegpt, trace"):
        read_workload(write(tmp_path, "q.txt", "a"), "csv")  # what a command line may pass

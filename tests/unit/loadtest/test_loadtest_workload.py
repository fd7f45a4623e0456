from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.errors import WorkloadError
from loadtest.workload import Message, read_workload


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_is_one_question_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "q.txt", "\ufeffWhat is TTFT?\r\n\r\n  Was ist das für ein Wort? \n")
    conversations = read_workload(path)
    assert [[turn.user for turn in one.turns] for one in conversations] == [
        ["What is TTFT?"],
        ["Was ist das für ein Wort?"],
    ]
    assert [one.conversation_id for one in conversations] == ["line-1", "line-3"]


def test_every_kind_of_json_line_is_read(tmp_path: Path) -> None:
    lines = [
        {"question": "q?"},
        {"id": "c", "collection": "x", "turns": [{"user": "one", "agent": "a"}, {"user": "two"}]},
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
    question, turns, messages = read_workload(path)
    assert (question.conversation_id, [t.user for t in question.turns]) == ("line-1", ["q?"])
    assert (turns.conversation_id, [t.user for t in turns.turns]) == ("c", ["one", "two"])
    assert messages.conversation_id == "7"
    assert messages.preamble == (Message("system", "Be brief."),)
    assert [(t.user, t.agent) for t in messages.turns] == [("first", "reference"), ("second", None)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "truncated"),
        ("[1]", "not an object"),
        ("[" * 100_000, "recursion"),
        ('{"prompt": "x"}', "none of the keys"),
        ('{"question": "x", "turns": []}', "'question' and 'turns'"),
        ('{"question": ""}', "length >= 1"),
        ('{"question": 3}', "Expected `str`"),
        ('{"turns": []}', "length >= 1"),
        ('{"turns": [{"agent": "a"}]}', "missing required field `user`"),
        ('{"turns": [{"user": ""}]}', r"\$.turns\[0\].user"),
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


def test_a_text_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "q.txt", b"fine\n\xff\xfe\n")
    with pytest.raises(WorkloadError, match=r"q\.txt:2: .*in UTF-8"):
        read_workload(path)


@pytest.mark.parametrize("name", ["q.txt", "w.jsonl"])
def test_a_file_without_turns_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkloadError, match="no turns in it"):
        read_workload(write(tmp_path, name, "\n  \n"))


def test_an_unknown_suffix_and_a_missing_file_are_errors_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"\.csv.*Use \.txt"):
        read_workload(write(tmp_path, "w.csv", "a"))
    with pytest.raises(WorkloadError, match=r"No such file.*Name a file"):
        read_workload(tmp_path / "absent.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(WorkloadError, match="directory"):
        read_workload(tmp_path / "folder.txt")

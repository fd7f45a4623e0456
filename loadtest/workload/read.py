"""A workload, read from a file: which kind it is, and where in it an error lies.

| kind | chosen by itself for | see |
| --- | --- | --- |
| `questions` | `.txt` | `lines` |
| `conversations` | `.jsonl` and `.ndjson` | `lines` |
| `trace` | the same, when the first line has `input_length` or `text_input` | `trace` |
| `sharegpt` | the same, when the first line has `conversations` or `conversation`; `.json` that begins with `[` | `sharegpt` |

A `.json` file that does not begin with `[` is read as lines. Blank lines are skipped.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import msgspec

from loadtest.errors import WorkloadError
from loadtest.workload.conversation import Conversation
from loadtest.workload.lines import (
    EXPECTED_LINE,
    EXPECTED_QUESTION,
    decode_object,
    numbered_lines,
    parse_conversation,
    parse_question,
)
from loadtest.workload.sharegpt import EXPECTED_ENTRY, Unusable, parse_entry
from loadtest.workload.trace import EXPECTED_TRACE, Trace
from loadtest.workload.workload import Skipped, Workload

WorkloadKind = Literal["auto", "questions", "conversations", "sharegpt", "trace"]

MAX_FILE_BYTES = 1 << 30

_BOM = b"\xef\xbb\xbf"
_BYTE_OFFSET = re.compile(r"\(byte (\d+)\)")
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_workload(path: Path, kind: WorkloadKind = "auto") -> Workload:
    """All conversations of a file, in order; a trace's by arrival.

    Raises `WorkloadError` naming the file, the line and what was expected.
    """
    if kind not in get_args(WorkloadKind):
        raise WorkloadError(
            f"--kind {kind!r} is no kind of workload. Use one of {', '.join(get_args(WorkloadKind))}."
        )
    data = _read(path)
    if kind == "auto":
        kind = _kind_of(path, data)
    if not data.strip():
        raise WorkloadError(f"{path}: no turns in it. Give it at least one question.")
    if kind == "questions":
        workload = _read_questions(path, data)
    elif kind == "conversations":
        workload = _read_conversations(path, data)
    elif kind == "trace":
        workload = _read_trace(path, data)
    else:
        workload = _read_sharegpt(path, data)
    if not workload.conversations:
        why = f" ({workload.remarks[0].removesuffix('.')})" if workload.remarks else ""
        raise WorkloadError(f"{path}: no turns in it{why}. Give it at least one question.")
    return workload


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise WorkloadError(f"{path}: {what}. Name a file.")
        if status.st_size > MAX_FILE_BYTES:
            raise WorkloadError(
                f"{path}: {status.st_size:,} bytes, and at most {MAX_FILE_BYTES:,} (1 GiB) are read. Use a part of the file."
            )
        return path.read_bytes().removeprefix(_BOM)
    except (OSError, ValueError) as error:  # a null character in the path is a `ValueError`
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise WorkloadError(f"{path}: {reason}. Name a file that can be read.") from error


def _kind_of(path: Path, data: bytes) -> WorkloadKind:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return "questions"
    if suffix == ".json" and data.lstrip().startswith(b"["):
        return "sharegpt"
    if suffix not in (".json", ".jsonl", ".ndjson"):
        raise WorkloadError(
            f"{path}: unknown kind of workload {suffix or '(no suffix)'!r}. Use .txt with one question per line, .jsonl or "
            ".json, or say what it holds: --kind questions, conversations, sharegpt or trace."
        )
    _, first_line = next(numbered_lines(data), (0, b""))
    try:
        keys = decode_object(first_line).keys()
    except (ValueError, RecursionError):
        return "conversations"  # whose parser says what is wrong, and where
    if keys & {"input_length", "text_input"}:
        return "trace"
    return "sharegpt" if keys & {"conversations", "conversation"} else "conversations"


def _bad(path: Path, line: int, error: Exception, expected: str) -> WorkloadError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return WorkloadError(f"{path}:{line}: {reason}. Expected {expected}.")


def _read_questions(path: Path, data: bytes) -> Workload:
    conversations: list[Conversation] = []
    for number, line in numbered_lines(data):
        try:
            question = parse_question(line, f"line-{number}")
        except ValueError as error:
            raise _bad(path, number, error, EXPECTED_QUESTION) from error
        if question is not None:
            conversations.append(question)
    return Workload(tuple(conversations))


def _read_conversations(path: Path, data: bytes) -> Workload:
    conversations: list[Conversation] = []
    for number, line in numbered_lines(data):
        try:
            conversations.append(parse_conversation(line, f"line-{number}"))
        except (ValueError, RecursionError) as error:
            raise _bad(path, number, error, EXPECTED_LINE) from error
    return Workload(tuple(conversations))


def _read_trace(path: Path, data: bytes) -> Workload:
    trace = Trace()
    for number, line in numbered_lines(data):
        try:
            trace.add(line, number)
        except (ValueError, RecursionError) as error:
            raise _bad(path, number, error, EXPECTED_TRACE) from error
    return Workload(trace.conversations())


def _read_sharegpt(path: Path, data: bytes) -> Workload:
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    dropped_openings = 0
    entries = _array_entries(path, data) if data.lstrip().startswith(b"[") else _line_entries(data)
    for number, line, raw in entries:
        try:
            conversation, opened = parse_entry(raw, f"entry-{number}")
        except Unusable as why:
            skipped.append(Skipped(f"entry {number} (line {line})", str(why)))
        except (ValueError, RecursionError) as error:
            raise _bad(path, line, error, f"in entry {number} {EXPECTED_ENTRY}") from error
        else:
            conversations.append(conversation)
            dropped_openings += opened
    return Workload(tuple(conversations), tuple(skipped), dropped_openings)


def _line_entries(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, line and JSON of each entry."""
    for number, (line, raw) in enumerate(numbered_lines(data), start=1):
        yield number, line, raw


def _array_entries(path: Path, data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The same from one JSON array; an entry's line is where it begins."""
    try:
        entries = _decode_list(data)
    except (ValueError, RecursionError) as error:
        offset = _BYTE_OFFSET.search(str(error))
        end = int(offset[1]) if offset else len(data.rstrip())
        raise _bad(path, data.count(b"\n", 0, end) + 1, error, f"a list of {EXPECTED_ENTRY}") from error
    line, position = 1, 0
    for number, entry in enumerate(entries, start=1):
        raw = bytes(entry)
        start = data.index(raw, position)
        line += data.count(b"\n", position, start)
        yield number, line, raw
        position = start + len(raw)
        line += data.count(b"\n", start, position)

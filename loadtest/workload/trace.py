"""Traces in Mooncake's format: when requests came, how long they were and which blocks of their prompts were the same.

| field | meaning |
| --- | --- |
| `timestamp` | arrival, ms; for every conversation or for none |
| `input_length` | tokens of the prompt |
| `output_length` | tokens of the reply to ask for; may be absent, 0 counts as 1 |
| `hash_ids` | one for each block of 512 prompt tokens, the last may be partial; may be absent |
| `text_input` | the prompt itself, in place of `input_length` |
| `session_id` | lines that share it are the turns of one conversation, in order; may be absent |
| `delay` | ms between the reply before and this turn; only in the later turns of a session |

Equal ids give equal text, so the target's prefix cache sees what the trace saw. Every other text is the trace's alone.
Lengths are in tokens of common English vocabularies (see `prose`); the target's chat template comes on top.

Sources: Mooncake's FAST'25 trace release, https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release;
`session_id`, `delay` and `text_input` as in https://github.com/ai-dynamo/aiperf.

Divergences
- A later turn of a session with a `timestamp` and no `delay` is an error: our turns wait for the reply before them.
- `messages`, `tools` and block sizes other than 512 are not supported.
- Other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from loadtest.workload.conversation import Conversation, Text, UserTurn
from loadtest.workload.prose import Prose

EXPECTED_TRACE = '{"timestamp": 0, "input_length": 1200, "output_length": 52, "hash_ids": [0, 1, 2]}'
BLOCK_TOKENS = 512
MAX_TRACE_TOKENS = 250_000_000
"""Of all prompts together: about 1.2 GB of text. The largest of Mooncake's own traces has 203 million."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TRACE_TOKENS)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class _Line(msgspec.Struct):
    timestamp: _Milliseconds | None = None
    input_length: Annotated[int, msgspec.Meta(ge=1, le=MAX_TRACE_TOKENS)] | None = None
    output_length: _Count | None = None
    hash_ids: tuple[int, ...] | None = None
    text_input: Text | None = None
    session_id: str | int | None = None
    delay: _Milliseconds | None = None


class _Session(msgspec.Struct):
    conversation_id: str
    timestamp_ms: float | None
    turns: list[UserTurn]


_decode = msgspec.json.Decoder(_Line).decode


class Trace:
    """Lines go in one by one, conversations come out in the order of their arrival."""

    def __init__(self) -> None:
        # Blocks and whole prompts are numbered apart, and shuffled apart.
        self._blocks = Prose(seed=512)
        self._prompts = Prose(seed=1)
        self._block_numbers: dict[int, int] = {}
        self._sessions: dict[str, _Session] = {}
        self._n_tokens = 0

    def add(self, raw: bytes, number: int) -> None:
        """Raises `ValueError`; the line is then not added."""
        line = _decode(raw)
        _check(line)
        key = f"line-{number}" if line.session_id is None else f"session-{line.session_id}"
        session = self._sessions.get(key)
        self._check_time(line, session)
        self._n_tokens += line.input_length or 0
        if self._n_tokens > MAX_TRACE_TOKENS:
            raise ValueError(
                f"the prompts up to here have more than {MAX_TRACE_TOKENS:,} tokens together, too much text to hold in memory. "
                "Cut the trace before this line"
            )
        max_tokens = None if line.output_length is None else max(1, line.output_length)
        if session is None:
            turn = UserTurn(self._text(line, number), None, max_tokens)
            self._sessions[key] = _Session(
                key if line.session_id is None else str(line.session_id), line.timestamp, [turn]
            )
        else:
            think_s = None if line.delay is None else line.delay / 1_000
            session.turns.append(UserTurn(self._text(line, number), None, max_tokens, think_s))

    def _check_time(self, line: _Line, session: _Session | None) -> None:
        if session is not None:
            if line.timestamp is not None and line.delay is None:
                raise ValueError(
                    "a later turn of its session has a `timestamp` and no `delay`. A turn waits for the reply before it: "
                    "give its `delay`, or leave `session_id` out"
                )
            return
        if line.delay:
            raise ValueError("a `delay` without a turn before it in the same `session_id`")
        first = next(iter(self._sessions.values()), None)
        if first is not None and (first.timestamp_ms is None) != (line.timestamp is None):
            raise ValueError(
                "no `timestamp`, unlike the lines before"
                if line.timestamp is None
                else "a `timestamp`, unlike the lines before"
            )

    def _text(self, line: _Line, number: int) -> str:
        if line.text_input is not None:
            return line.text_input
        n_tokens = line.input_length or 0
        if line.hash_ids is None:
            return self._prompts.passage(number, n_tokens)
        return " ".join(self._block_texts(line.hash_ids, n_tokens))

    def _block_texts(self, hash_ids: Iterable[int], n_tokens: int) -> list[str]:
        texts = []
        for hash_id in hash_ids:
            block_number = self._block_numbers.setdefault(hash_id, len(self._block_numbers))
            texts.append(self._blocks.passage(block_number, min(BLOCK_TOKENS, n_tokens)))
            n_tokens -= BLOCK_TOKENS
        return texts

    def conversations(self) -> tuple[Conversation, ...]:
        """Those without a time stamp are in the order of their lines."""
        sessions = sorted(self._sessions.values(), key=lambda session: session.timestamp_ms or 0.0)
        first_ms = sessions[0].timestamp_ms if sessions else None
        return tuple(
            Conversation(
                session.conversation_id,
                tuple(session.turns),
                due_s=None
                if session.timestamp_ms is None or first_ms is None
                else (session.timestamp_ms - first_ms) / 1_000,
            )
            for session in sessions
        )


def _check(line: _Line) -> None:
    if (line.input_length is None) == (line.text_input is None):
        raise ValueError("it needs exactly one of `input_length` and `text_input`")
    if line.hash_ids is None:
        return
    if line.input_length is None:
        raise ValueError("`hash_ids` without `input_length`")
    n_blocks = -(-line.input_length // BLOCK_TOKENS)
    if len(line.hash_ids) != n_blocks:
        raise ValueError(
            f"`input_length` {line.input_length} is {n_blocks} blocks of {BLOCK_TOKENS} tokens, "
            f"but `hash_ids` has {len(line.hash_ids)}. Other block sizes are not supported"
        )

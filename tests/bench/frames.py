"""What it takes to render one token as an SSE frame: Firstword's template against rendering the whole chunk."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
from pydantic import BaseModel

from server.api.frames import Frames
from server.context.template import Message
from server.engine.protocol import Sampling
from server.telemetry.timing import TurnClock
from server.turn import Turn, TurnRequest

AIM_NS = 500
_TEXT = " word"
_ID, _MODEL, _CREATED = "chatcmpl-" + "0123456789abcdef" * 2, "SmolLM2-135M-Instruct", 1_700_000_000
_OBJECT = "chat.completion.chunk"
_CALLS = 20_000


class Rendering(msgspec.Struct, frozen=True):
    name: str
    ns: float
    """Median of the repeats."""


class _Delta(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    index: int
    delta: _Delta
    logprobs: None
    finish_reason: str | None


class _Chunk(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice]


class _DeltaModel(BaseModel):
    content: str


class _ChoiceModel(BaseModel):
    index: int
    delta: _DeltaModel
    logprobs: None
    finish_reason: str | None


class _ChunkModel(BaseModel):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ChoiceModel]


def templated() -> Callable[[str], bytes]:
    request = TurnRequest([Message("user", "x")], Sampling(max_tokens=5), False, 2, True)
    turn = Turn(request=request, tenant="anonymous", clock=TurnClock())
    turn.turn_id, turn.created = _ID.replace("chatcmpl-", "turn_"), _CREATED
    return Frames(turn, _MODEL).text


def with_msgspec(text: str) -> bytes:
    chunk = _Chunk(_ID, _OBJECT, _CREATED, _MODEL, [_Choice(0, _Delta(text), None, None)])
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def with_json(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    chunk = {"id": _ID, "object": _OBJECT, "created": _CREATED, "model": _MODEL, "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


def with_pydantic(text: str) -> bytes:
    choice = _ChoiceModel(index=0, delta=_DeltaModel(content=text), logprobs=None, finish_reason=None)
    chunk = _ChunkModel(id=_ID, object=_OBJECT, created=_CREATED, model=_MODEL, choices=[choice])
    return f"data: {chunk.model_dump_json()}\n\n".encode()


def renderings() -> dict[str, Callable[[str], bytes]]:
    """All say the same; Firstword's comes first."""
    return {
        "Firstword (template, text encoded into it)": templated(),
        "msgspec structs": with_msgspec,
        "json": with_json,
        "pydantic models": with_pydantic,
    }


def said_by(frame: bytes) -> Any:
    return json.loads(frame.removeprefix(b"data: "))


def time_renderings(repeats: int = 9) -> list[Rendering]:
    """Interleaved, so that a busy moment meets all of them."""
    found = renderings()
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, render in found.items():
            names = {"render": render, "text": _TEXT}
            seconds[name].append(timeit.timeit("render(text)", globals=names, number=_CALLS) / _CALLS)
    return [Rendering(name, median(times) * 1e9) for name, times in seconds.items()]


def main() -> None:
    for rendering in time_renderings():
        print(f"{rendering.ns:8.0f} ns  {rendering.name}")


if __name__ == "__main__":
    main()

"""The promises a response keeps, whatever befell it, against what the engine really said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from fault.client import Response
from server.engine.protocol import FinishReason
from wire import Stream, take_apart


@dataclass(frozen=True, slots=True)
class Truth:
    """What was said, by choice."""

    texts: Sequence[str]
    reasons: Sequence[FinishReason]
    completion_tokens: int


def stream_of(response: Response) -> Stream:
    """A stream taken apart; of one that was cut, its whole events."""
    raw = bytes(response.body)
    if not response.complete:
        raw = raw[: raw.rfind(b"\n\n") + 2] if b"\n\n" in raw else b""
    headers = httpx.Headers(response.headers)
    if not raw:
        return Stream(response.status, headers, raw)
    return take_apart(response.status, headers, raw)


def texts_of(stream: Stream, n: int) -> list[str]:
    texts = [""] * n
    for chunk in stream.chunks:
        for choice in chunk.get("choices", []):
            texts[choice["index"]] += choice["delta"].get("content") or ""
    return texts


def turn_id_of(response: Response) -> str:
    """Told with the first chunk."""
    turn_id: str = stream_of(response).chunks[0]["firstword"]["turn_id"]
    return turn_id


def judge(response: Response, truth: Truth) -> str:
    """Its ending in a word or two, after every promise was checked."""
    if response.status != 200:
        return _judge_refusal(response)
    if response.headers["content-type"].startswith("application/json"):
        return _judge_whole(response, truth)
    return _judge_stream(response, truth)


def _judge_stream(response: Response, truth: Truth) -> str:
    stream = stream_of(response)
    n = len(truth.texts)
    texts, reasons = texts_of(stream, n), _reasons(stream)
    for index, text in enumerate(texts):
        assert truth.texts[index].startswith(text), f"choice {index} is no beginning of what was said"
        found = reasons.get(index, [])
        assert len(found) <= 1, f"choice {index} ended {len(found)} times"
        if found:
            assert text == truth.texts[index], f"choice {index} looks complete and is not"
            assert found == [truth.reasons[index]]
    errors = [chunk["error"] for chunk in stream.chunks if "error" in chunk]
    finished = len(reasons) == n
    if not response.complete:
        assert not errors or not finished
        return "cut"
    assert stream.done, "the stream has no [DONE]"
    assert finished != bool(errors), f"{len(reasons)} of {n} choices finished, {len(errors)} errors"
    assert len(errors) <= 1
    _judge_order(stream, n)
    if errors:
        assert set(errors[0]) == {"message", "type", "param", "code"}
        return f"error event {errors[0]['code']}"
    _judge_usage(stream, truth)
    return "finished"


def _reasons(stream: Stream) -> dict[int, list[str]]:
    reasons: dict[int, list[str]] = {}
    for chunk in stream.chunks:
        for choice in chunk.get("choices", []):
            if choice["finish_reason"] is not None:
                assert choice["delta"] == {}
                reasons.setdefault(choice["index"], []).append(choice["finish_reason"])
    return reasons


def _judge_order(stream: Stream, n: int) -> None:
    """Roles open it; nothing of a choice follows its finish, nothing at all an error."""
    chunks = stream.chunks
    if "error" not in chunks[0]:
        roles = [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:n]]
        assert roles == ["assistant"] * n
    ended: set[int] = set()
    for position, chunk in enumerate(chunks):
        assert "error" not in chunk or position == len(chunks) - 1
        for choice in chunk.get("choices", []):
            assert choice["index"] not in ended
            if choice["finish_reason"] is not None:
                ended.add(choice["index"])


def _judge_usage(stream: Stream, truth: Truth) -> None:
    usages = [chunk["usage"] for chunk in stream.chunks if chunk.get("usage")]
    assert len(usages) <= 1
    for usage in usages:
        assert usage["completion_tokens"] == truth.completion_tokens


def _judge_whole(response: Response, truth: Truth) -> str:
    if not response.complete:
        return "cut"
    body = json.loads(bytes(response.body))
    assert [choice["message"]["content"] for choice in body["choices"]] == list(truth.texts)
    assert [choice["finish_reason"] for choice in body["choices"]] == list(truth.reasons)
    assert body["usage"]["completion_tokens"] == truth.completion_tokens
    return "finished"


def _judge_refusal(response: Response) -> str:
    """Nothing was sent yet, so the error has its status."""
    if not response.complete:
        return "cut"
    error = json.loads(bytes(response.body))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.status >= 400
    assert response.status not in (429, 503) or float(response.headers["retry-after"]) > 0
    return f"{response.status} {error['code']}"

"""Reading the wire as a careful client does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


def question(text: str = "How long can I return an item?", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


@dataclass(slots=True)
class Stream:
    """One streamed answer, taken apart."""

    status: int
    headers: httpx.Headers
    raw: bytes
    chunks: list[dict[str, Any]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content") or ""
            for chunk in self.chunks
            for choice in chunk.get("choices", [])
        )

    @property
    def finish_reasons(self) -> list[str]:
        return [
            choice["finish_reason"]
            for chunk in self.chunks
            for choice in chunk.get("choices", [])
            if choice["finish_reason"] is not None
        ]

    @property
    def error(self) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = [chunk["error"] for chunk in self.chunks if "error" in chunk]
        return found[0] if found else None

    @property
    def timing(self) -> dict[str, Any]:
        (timing,) = [
            chunk["firstword"]["timing"] for chunk in self.chunks if "timing" in chunk.get("firstword", {})
        ]
        found: dict[str, Any] = timing
        return found


def take_apart(status: int, headers: httpx.Headers, raw: bytes) -> Stream:
    """Strict: every event is one `data:` line or a comment, and nothing follows `[DONE]`."""
    stream = Stream(status, headers, raw)
    assert raw.endswith(b"\n\n"), "the last event lacks its blank line"
    for event in raw.decode().split("\n\n")[:-1]:
        assert not stream.done, "something follows [DONE]"
        if event.startswith(":"):
            stream.comments.append(event)
        elif event == "data: [DONE]":
            stream.done = True
        else:
            assert event.startswith("data: ")
            assert "\n" not in event
            stream.chunks.append(json.loads(event.removeprefix("data: ")))
    return stream


async def ask(url: str, body: dict[str, Any], **headers: str) -> Stream:
    """Stream a turn to its end."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client,
        client.stream("POST", CHAT, json=body | {"stream": True}, headers=headers) as response,
    ):
        raw = await response.aread()
    assert response.headers["content-type"].startswith("text/event-stream"), raw
    return take_apart(response.status_code, response.headers, raw)


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Chunks as they come."""
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))

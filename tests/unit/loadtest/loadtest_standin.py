"""What the stand-in server does: one behaviour per path, `/{behaviour}/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

DELAY_S = 0.15
GAP_S = 0.02


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": choices,
        **more,
    }


def frame(data: object, ending: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + ending


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    details = {"cached_tokens": cached}
    return chunk(
        usage={"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    )


class StandIn:
    """Keeps what it was sent, for tests to look at."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.app = Starlette(
            routes=[
                Route("/{behaviour}/v1/models", self._models),
                Route("/{behaviour}/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    def url(self, behaviour: str) -> str:
        return f"{self.origin}/{behaviour}/v1"

    async def _models(self, request: Request) -> Response:
        match request.path_params["behaviour"]:
            case "html":
                return HTMLResponse("<h1>Welcome to nginx!</h1>")
            case "unauthorized":
                return JSONResponse({"error": {"message": "no"}}, status_code=401)
            case _:
                return JSONResponse(
                    {"object": "list", "data": [{"id": "first-model"}, {"id": "second-model"}]}
                )

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        behaviour = request.path_params["behaviour"]
        if behaviour in ANSWERS:
            return ANSWERS[behaviour](request)
        return StreamingResponse(STREAMS[behaviour](body), media_type="text/event-stream")


Body = dict[str, Any]


async def _plain(body: Body) -> AsyncIterator[bytes]:
    """Role, DELAY_S, three tokens GAP_S apart, finish, usage. The reply counts the turns."""
    turn = sum(message["role"] == "user" for message in body["messages"])
    yield frame(ROLE)
    await asyncio.sleep(DELAY_S)
    for word in ("reply", " number", f" {turn}"):
        yield frame(chunk({"content": word}))
        await asyncio.sleep(GAP_S)
    yield frame(STOP) + frame(usage(100, 5, 50 * (turn - 1))) + DONE


async def _late(body: Body) -> AsyncIterator[bytes]:
    """All that is no token at once, the token late, and then server-side figures."""
    yield (
        b": keep-alive\n\n" + frame(ROLE) + frame(chunk({"content": None})) + frame(chunk({"tool_calls": []}))
    )
    await asyncio.sleep(DELAY_S)
    yield frame(chunk({"content": "late"}))
    timing = {"ttft": 100.0, "prompt_tokens": 40, "cached_tokens": 30, "prefill": 80.0}
    yield frame(chunk({}, "stop", firstword={"timing": timing})) + DONE


async def _reasoning(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(chunk({"reasoning_content": "Hmm"}))
    await asyncio.sleep(DELAY_S)
    yield frame(chunk({"content": "Yes"})) + frame(STOP) + DONE


async def _tool_call(body: Body) -> AsyncIterator[bytes]:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
    yield frame(ROLE) + frame(chunk({"tool_calls": [call]})) + frame(chunk({}, "tool_calls")) + DONE


async def _error_event(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(chunk({"content": "so"}))
    yield frame({"error": {"message": "the engine [bold]died[/bold]", "type": "server_error"}}) + DONE


async def _no_done(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(chunk({"content": "so"})) + frame(STOP)


async def _no_finish(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(chunk({"content": "so"})) + DONE


async def _half_event(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(chunk({"content": "so"})) + b'data: {"choices": [{"del'


async def _bad_json(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + b'data: {"choices": [{]}\n\n' + frame(STOP) + DONE


async def _wrong_shape(body: Body) -> AsyncIterator[bytes]:
    yield frame({"choices": {"delta": "no list"}}) + DONE


async def _silent(body: Body) -> AsyncIterator[bytes]:
    yield b": keep-alive\n\n"
    await asyncio.sleep(5)


async def _lingers(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(chunk({"content": "so"})) + frame(STOP) + DONE
    await asyncio.sleep(10)


async def _empty(body: Body) -> AsyncIterator[bytes]:
    yield frame(ROLE) + frame(STOP) + DONE


async def _scattered(body: Body) -> AsyncIterator[bytes]:
    """CRLF, comments, no space after the colon, and every character of the reply cut by a read."""
    text = "".join(
        f"data:{json.dumps(chunk({'content': piece}), ensure_ascii=False)}\r\n\r\n: ping\r\n\r\n"
        for piece in ("Grüße", " 👩‍🚀", " 日本")
    ).encode()
    for start in range(0, len(text), 61):
        yield text[start : start + 61]
        await asyncio.sleep(0.002)
    yield frame(STOP, b"\r\n\r\n") + b"data:[DONE]\r\n\r\n"


async def _fails_on_second(body: Body) -> AsyncIterator[bytes]:
    if len(body["messages"]) > 1:
        yield frame({"error": {"message": "once is enough"}}) + DONE
        return
    yield frame(chunk({"content": "ok"})) + frame(STOP) + DONE


STREAMS: dict[str, Callable[[Body], AsyncIterator[bytes]]] = {
    "plain": _plain,
    "late": _late,
    "reasoning": _reasoning,
    "tool-call": _tool_call,
    "error-event": _error_event,
    "no-done": _no_done,
    "no-finish": _no_finish,
    "half-event": _half_event,
    "bad-json": _bad_json,
    "wrong-shape": _wrong_shape,
    "silent": _silent,
    "lingers": _lingers,
    "empty": _empty,
    "scattered": _scattered,
    "fails-on-second": _fails_on_second,
}


class _CutResponse(Response):
    """Promises more and breaks the connection off."""

    async def __call__(
        self, scope: Any, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        body = frame(ROLE) + frame(chunk({"content": "so"}))
        await send({"type": "http.response.body", "body": body, "more_body": True})


ANSWERS: dict[str, Callable[[Request], Response]] = {
    "html": lambda request: HTMLResponse("<h1>Welcome to nginx!</h1>"),
    "json": lambda request: JSONResponse({"object": "chat.completion", "choices": []}),
    "busy": lambda request: JSONResponse({"error": {"message": "queue full"}}, 429, {"retry-after": "1"}),
    "loading": lambda request: JSONResponse({"error": {"message": "loading engine"}}, status_code=503),
    "broken": lambda request: Response("boom\nat line 3", status_code=500),
    "echoes-key": lambda request: JSONResponse(
        {"error": {"message": f"bad key {request.headers['authorization'].split()[1]}"}}, status_code=401
    ),
    "cut": lambda request: _CutResponse(),
}

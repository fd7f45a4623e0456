"""`POST /v1/chat/completions`: accept and emit, the two ends of a turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api import frames
from server.api.gate import gate_of
from server.api.schema import ChatRequest, parse_chat_request, to_turn_request
from server.errors import FirstwordError, Internal, NotFound, TooLarge
from server.parts import Parts
from server.turn import Turn, run_turn

log = logging.getLogger(__name__)

_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_CLIENT_GONE = Response(status_code=499)


async def chat_completions(request: Request) -> Response:
    parts = gate_of(request).ready_parts()
    chat, turn = await accept(request, parts)
    if chat.stream:
        return await _stream(request, chat, turn, parts)
    answer = await _unless_gone(request, _collect(chat, turn, parts))
    if answer is None:
        return _CLIENT_GONE
    headers = {"server-timing": frames.server_timing(turn)}
    return Response(answer, media_type="application/json", headers=headers)


async def accept(request: Request, parts: Parts) -> tuple[ChatRequest, Turn]:
    """Bytes → validated request, key → tenant; the turn and its ids are made here."""
    clock = request.scope["state"]["clock"]
    tenant = parts.authenticator.tenant(request.headers.get("authorization"))
    chat = parse_chat_request(await read_body(request, parts.settings.http.max_body_bytes))
    if chat.model not in (None, parts.model_name):
        raise NotFound(
            f"there is no model {chat.model!r}; this server has {parts.model_name!r}", param="model"
        )
    return chat, Turn(request=to_turn_request(chat, parts.settings), tenant=tenant, clock=clock)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises `TooLarge` as soon as more than `max_bytes` are announced or have come."""
    announced = request.headers.get("content-length", "")
    body = bytearray()
    if not (announced.isdigit() and int(announced) > max_bytes):
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                break
        else:
            return bytes(body)
    raise TooLarge(f"the body is larger than {max_bytes} bytes")


async def _stream(request: Request, chat: ChatRequest, turn: Turn, parts: Parts) -> Response:
    """Wait for the first frame, so that an error before it has its status; a heartbeat's time at most."""
    http = parts.settings.http
    body = _emit(chat, turn, parts)
    first = asyncio.ensure_future(anext(body))
    try:
        gone = await _first_done(request, first, timeout_s=http.heartbeat_s)
    except BaseException:
        await _abandon(first, body)
        raise
    if gone:
        await _abandon(first, body)
        return _CLIENT_GONE
    if first.done() and (error := first.exception()) is not None:
        raise error
    return TurnStream(
        first,
        body,
        turn,
        headers={**_STREAM_HEADERS, "server-timing": frames.server_timing(turn)},
        ping=http.heartbeat_s,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
        sep="\n",
        send_timeout=http.send_timeout_s,
        # The drain ends streams itself, with an error event; this only has to come after it.
        shutdown_grace_period=http.shutdown_grace_s + 1,
        shutdown_event=anyio.Event(),
    )


async def _emit(chat: ChatRequest, turn: Turn, parts: Parts) -> AsyncGenerator[bytes, None]:
    """Deltas → frames. Control comes back when a frame was handed to the socket."""
    rendered = frames.Frames(turn, parts.model_name)
    opened = False
    async with aclosing(run_turn(turn, parts)) as deltas:
        async for delta in deltas:
            if not opened:
                opened = True
                yield rendered.role()
            if delta.text:
                yield rendered.text(delta.text)
                if turn.clock.ttft_ms is None:
                    turn.clock.end("first_byte")
            if delta.finish_reason is not None:
                yield rendered.finish()
                if chat.include_usage:
                    yield rendered.usage()
    yield frames.DONE


class TurnStream(EventSourceResponse):
    """The frames from the first on; an error after the response began becomes its last event.

    The turn ends with the response, also when the client left before a single frame was asked for.
    """

    def __init__(
        self, first: asyncio.Future[bytes], body: AsyncGenerator[bytes, None], turn: Turn, **options: Any
    ) -> None:
        super().__init__(self._frames(), **options)
        self._first, self._body, self._turn = first, body, turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _abandon(self._first, self._body)

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        try:
            yield await self._first
            async for frame in self._body:
                yield frame
        except FirstwordError as error:
            yield frames.error_frame(error)
            yield frames.DONE
        except Exception:
            log.exception("turn %s failed", self._turn.turn_id)
            message = f"an error of ours; its log entry names turn {self._turn.turn_id}"
            yield frames.error_frame(Internal(message))
            yield frames.DONE


async def _collect(chat: ChatRequest, turn: Turn, parts: Parts) -> bytes:
    pieces: list[str] = []
    async with aclosing(run_turn(turn, parts)) as deltas:
        async for delta in deltas:
            if delta.text and not pieces:
                turn.clock.end("first_byte")
            pieces.append(delta.text)
    return frames.completion(turn, parts.model_name, "".join(pieces))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes | None:
    """The work's result; None, with the work cancelled, when the client went away first."""
    task = asyncio.ensure_future(work)
    try:
        gone = await _first_done(request, task, timeout_s=None)
    except BaseException:
        task.cancel()
        raise
    if gone:
        task.cancel()
        await asyncio.wait((task,))
        return None
    return task.result()


async def _first_done(request: Request, task: asyncio.Future[Any], timeout_s: float | None) -> bool:
    """Wait for the task, the timeout or the client's leaving; true for the last."""
    disconnect = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, disconnect), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return disconnect.done() and not task.done()
    finally:
        disconnect.cancel()


async def _abandon(first: asyncio.Future[bytes], body: AsyncGenerator[bytes, None]) -> None:
    """End whatever the stream was doing. A generator that is running cannot be closed, so its task goes first."""
    if not first.done():
        first.cancel()
        await asyncio.wait((first,))
    await body.aclose()

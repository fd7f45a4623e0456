"""`POST /v1/chat/completions`: accept, and the response that emits the turn or collects it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.api import frames
from server.api.emit import Emission, TurnStream, abandon
from server.api.gate import gate_of
from server.api.reach import check_reach
from server.api.request import parse_chat_request, to_turn_request
from server.api.schema import ChatRequest
from server.engine.protocol import RequestRefused
from server.engine.reply import ReplyParsers, ToolUse
from server.errors import (
    Forbidden,
    InvalidParameter,
    NotFound,
    RequestTimeout,
    TooLarge,
)
from server.parts import Parts
from server.turn import Turn, run_turn
from server.turn_request import TurnRequest

_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_SMALL_BODY_BYTES = 65_536
"""Parsed on the event loop in a few milliseconds at most."""
CLIENT_GONE = Response(status_code=499)


async def chat_completions(request: Request) -> Response:
    parts = gate_of(request).ready_parts()
    try:
        chat, turn = await accept(request, parts)
    except ClientDisconnect:
        return CLIENT_GONE
    if chat.stream:
        return await _stream(request, chat, turn, parts)
    answer = await _unless_gone(request, _collect(chat, turn, parts))
    if answer is None:
        return CLIENT_GONE
    headers = {"server-timing": frames.server_timing(turn)}
    return Response(answer, media_type="application/json", headers=headers)


async def accept(request: Request, parts: Parts) -> tuple[ChatRequest, Turn]:
    """Bytes → validated request, key → tenant; the turn and its ids are made here.

    Whoever cannot be admitted is told before anything is read.
    """
    tenant = parts.authenticator.tenant(request.headers.get("authorization"))
    parts.admission.refuse_when_full(tenant)
    chat = await read_chat_request(request, parts)
    if chat.service_tier == "priority" and tenant not in parts.settings.auth.priority_tenants:
        raise Forbidden("this API key may not ask for priority", param="service_tier")
    turn_request = to_turn_request(chat, parts.deployment)
    reads_json = turn_request.sampling.grammar is not None
    await check_reach(turn_request, tenant, parts)
    if turn_request.tool_use is not None and parts.reply_parsers is not None:
        turn_request = await asyncio.to_thread(
            _constrain, turn_request, turn_request.tool_use, parts.reply_parsers
        )
    clock = request.scope["state"]["clock"]
    return chat, Turn(request=turn_request, tenant=tenant, clock=clock, reads_json=reads_json)


async def read_chat_request(request: Request, parts: Parts) -> ChatRequest:
    """Raises the errors of a body that is too slow, too large or not valid, and `NotFound` for another model."""
    settings = parts.settings
    try:
        async with asyncio.timeout(settings.http.body_timeout_s):
            body = await read_body(request, settings.limits.max_body_bytes)
    except TimeoutError:
        raise RequestTimeout(f"the body was not whole after {settings.http.body_timeout_s:g} s") from None
    if len(body) > _SMALL_BODY_BYTES:
        chat = await asyncio.to_thread(parse_chat_request, body)
    else:
        chat = parse_chat_request(body)
    if chat.model not in (None, parts.model_name):
        raise NotFound(
            f"there is no model {chat.model[:256]!r}; this server has {parts.model_name!r}", param="model"
        )
    return chat


def _constrain(request: TurnRequest, tool_use: ToolUse, parsers: ReplyParsers) -> TurnRequest:
    """With what the tools demand of the answer. Raises `InvalidParameter`."""
    try:
        constraint = parsers.constrain(tool_use, request.sampling.grammar)
    except RequestRefused as error:
        raise InvalidParameter(f"tools: {error}", param="tools") from error
    sampling = replace(
        request.sampling,
        grammar=constraint.grammar,
        skip_special_tokens=constraint.skip_special_tokens,
    )
    return replace(request, sampling=sampling)


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
    emission = Emission(chat, turn, parts, request.scope["state"]["outlet"])
    body = emission.frames()
    first = asyncio.ensure_future(anext(body))
    try:
        await asyncio.sleep(0)  # the turn goes ahead; its response is made while the engine computes
        stream = TurnStream(
            emission,
            first,
            body,
            headers=_STREAM_HEADERS,
            ping=http.heartbeat_s,
            ping_message_factory=lambda: frames.HEARTBEAT,  # bytes pass through untouched
            sep="\n",
            # The drain ends streams itself, with an error event; this only has to come after it.
            shutdown_grace_period=http.shutdown_grace_s + 0.5,
            shutdown_event=anyio.Event(),
        )
        gone = await _first_done(request, first, timeout_s=http.heartbeat_s)
    except BaseException:
        await abandon(first, body)
        raise
    if gone:
        await abandon(first, body)
        return CLIENT_GONE
    if first.done() and (error := first.exception()) is not None:
        raise error
    stream.headers["server-timing"] = frames.server_timing(turn)
    return stream


async def _collect(chat: ChatRequest, turn: Turn, parts: Parts) -> bytes:
    collected = frames.Collected(turn.request.sampling.n)
    async with aclosing(run_turn(turn, parts)) as deltas:
        async for delta in deltas:
            if turn.clock.ttft_ms is None and (
                delta.text or delta.reasoning or delta.tool_calls or delta.refusal
            ):
                turn.clock.end("first_byte")
            collected.add(delta)
    return collected.body(turn, parts.model_name, chat.service_tier)


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

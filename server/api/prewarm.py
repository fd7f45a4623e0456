"""`POST /v1/chat/prewarm`: what the user has typed so far, to be prefilled before they send it."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.ahead import prewarm
from server.api.chat import CLIENT_GONE, read_chat_request
from server.api.gate import gate_of
from server.api.reach import check_reach
from server.api.request import to_turn_request
from server.api.responses import json_response
from server.errors import Busy, NotFound


async def prewarm_chat(request: Request) -> Response:
    """202 whether it has begun or was dropped: nothing that a client could do depends on it."""
    parts = gate_of(request).ready_parts()
    if not parts.settings.prewarm.enabled:
        raise NotFound("type-ahead is turned off here (prewarm.enabled)")
    tenant = parts.authenticator.tenant(request.headers.get("authorization"))
    if wait_s := parts.prewarm_rate.wait_s(tenant):
        most = parts.settings.prewarm.calls_per_minute
        raise Busy(f"at most {most} calls a minute are taken of one API key", retry_after_s=wait_s)
    try:
        chat = await read_chat_request(request, parts)
    except ClientDisconnect:
        return CLIENT_GONE
    request_ahead = to_turn_request(chat, parts.deployment)
    await check_reach(request_ahead, tenant, parts)
    dropped = prewarm(request_ahead, tenant, parts)
    told = {"object": "chat.prewarm", "status": "dropped" if dropped else "started"}
    if dropped:
        told["reason"] = dropped
    return json_response(told, 202)

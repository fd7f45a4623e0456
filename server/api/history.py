"""What was: the last turns with their phases, and the passages they cite."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import NotHere
from retrieval.types import Passage
from server.api.gate import gate_of
from server.api.responses import json_response
from server.errors import InvalidParameter, NotFound
from server.parts import Parts
from server.telemetry.turnlog import TurnRecord

_MOST_TURNS = 200


async def list_turns(request: Request) -> Response:
    """Newest first. Query: `limit` (1 to 200, default 20), `before` (a turn id: the page after it)."""
    parts = gate_of(request).open_parts()
    tenant = parts.authenticator.tenant(request.headers.get("authorization"))
    asked = request.query_params.get("limit", "20")
    if not asked.isascii() or not asked.isdigit() or len(asked) > 3 or not 1 <= int(asked) <= _MOST_TURNS:
        raise InvalidParameter(f"limit must be a whole number from 1 to {_MOST_TURNS}", param="limit")
    before = request.query_params.get("before")
    turns = await asyncio.to_thread(parts.turn_log.latest, tenant, int(asked) + 1, before)
    page = turns[: int(asked)]
    return json_response(
        {"object": "list", "data": [_turn(turn) for turn in page], "has_more": len(turns) > len(page)}
    )


async def get_turn(request: Request) -> Response:
    parts = gate_of(request).open_parts()
    tenant = parts.authenticator.tenant(request.headers.get("authorization"))
    turn_id = request.path_params["turn_id"]
    turn = await asyncio.to_thread(parts.turn_log.find, tenant, turn_id)
    if turn is None:
        raise NotFound(f"there is no turn {turn_id!r}, or it is no longer kept", param="turn_id")
    return json_response(_turn(turn))


async def get_passage(request: Request) -> Response:
    """The whole chunk behind a citation."""
    parts = gate_of(request).open_parts()
    tenant = parts.authenticator.tenant(request.headers.get("authorization"))
    chunk_id = request.path_params["chunk_id"]
    passage = await asyncio.to_thread(_passage_of, chunk_id, tenant, parts)
    if passage is None:
        raise NotFound(f"there is no passage {chunk_id!r}; its document may have changed", param="chunk_id")
    return json_response(
        {
            "chunk_id": passage.chunk_id,
            "document_id": passage.document_id,
            "filename": passage.filename,
            "title": passage.title,
            "heading_path": passage.heading_path,
            "text": passage.text,
        }
    )


def _passage_of(chunk_id: str, tenant: str, parts: Parts) -> Passage | None:
    """None, too, when it is another tenant's."""
    passage = parts.store.passage(chunk_id)
    if passage is None:
        return None
    try:
        parts.files.store(tenant, passage.store_id)
    except NotHere:
        return None
    return passage


def _turn(turn: TurnRecord) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(turn)
    del fields["tenant"]
    return {"id": fields.pop("turn_id"), "object": "turn", **fields}

"""Whether a caller may search the vector stores that a request names."""

from __future__ import annotations

import asyncio

from retrieval.errors import NotHere
from retrieval.types import DEFAULT_STORE
from server.errors import NotFound
from server.parts import Parts
from server.turn_request import TurnRequest


async def check_reach(request: TurnRequest, tenant: str, parts: Parts) -> None:
    """Raises `NotFound` for a vector store that is not there, or is another tenant's: nobody can tell which."""
    named = [store_id for store_id in request.where.store_ids if store_id != DEFAULT_STORE]
    if not (request.retrieve and named):
        return
    try:
        await asyncio.to_thread(_look_up, named, tenant, parts)
    except NotHere as error:
        raise NotFound(str(error), param="retrieval.vector_store_ids") from error


def _look_up(store_ids: list[str], tenant: str, parts: Parts) -> None:
    for store_id in store_ids:
        parts.files.store(tenant, store_id)
        parts.files.touch_store(store_id)

"""JSON responses, and errors in their one shape."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from server.api.gate import gate_of
from server.errors import FirstwordError, Internal, MethodNotAllowed, NotFound, Unauthorized, envelope

log = logging.getLogger(__name__)

_LONGEST_PATH_SHOWN = 128


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def error_response(error: FirstwordError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(round(error.retry_after_s * 1_000))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return json_response(envelope(error), error.status, headers)


async def on_firstword_error(request: Request, error: Exception) -> Response:
    known = cast(FirstwordError, error)
    parts = gate_of(request).parts
    if parts is not None:
        parts.metrics.count_error(known.code or known.type)
    return error_response(known)


async def on_http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in our shape."""
    path = request.url.path[:_LONGEST_PATH_SHOWN]
    known = cast(HTTPException, error)
    if known.status_code == 405:
        response = error_response(MethodNotAllowed(f"{request.method} is not allowed on {path}"))
        response.headers.update(known.headers or {})
        return response
    return error_response(NotFound(f"there is nothing at {path}; the API begins at /v1/"))


def bug_response(error: Exception, request_id: str) -> Response:
    log.error("request %s failed", request_id, exc_info=error)
    return error_response(Internal(f"an error of ours; its log entry names request {request_id}"))

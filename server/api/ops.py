"""Health and metrics, for whoever watches the server."""

from __future__ import annotations

from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from server.api.gate import gate_of
from server.api.responses import json_response


async def live(request: Request) -> Response:
    return json_response({"status": "live"})


async def ready(request: Request) -> Response:
    gate = gate_of(request)
    readiness = gate.readiness
    body: dict[str, Any] = {"status": readiness.state, "phase": readiness.phase}
    if gate.parts is not None:
        body["model"] = gate.parts.model_name
    if readiness.state == "ready":
        return json_response(body)
    return json_response(body, status=503, headers={"retry-after": "2"})


async def metrics(request: Request) -> Response:
    parts = gate_of(request).open_parts()
    return Response(parts.metrics.render(), media_type=CONTENT_TYPE_LATEST)

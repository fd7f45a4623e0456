"""`GET /v1/models`: the one model this server has."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.gate import gate_of
from server.api.responses import json_response
from server.errors import NotFound
from server.parts import Parts


async def list_models(request: Request) -> Response:
    parts = gate_of(request).open_parts()
    parts.authenticator.tenant(request.headers.get("authorization"))
    return json_response({"object": "list", "data": [_model(parts, request.app.state.started)]})


async def get_model(request: Request) -> Response:
    parts = gate_of(request).open_parts()
    parts.authenticator.tenant(request.headers.get("authorization"))
    asked = request.path_params["model"]
    if asked != parts.model_name:
        raise NotFound(f"there is no model {asked!r}; this server has {parts.model_name!r}", param="model")
    return json_response(_model(parts, request.app.state.started))


def _model(parts: Parts, created: int) -> dict[str, Any]:
    return {
        "id": parts.model_name,
        "object": "model",
        "created": created,
        "owned_by": "firstword",
        "max_model_len": parts.settings.engine.max_model_len,
    }

"""One operation of the published document: its answers, its errors, its parameters."""

from __future__ import annotations

from typing import Any

from server import errors
from server.api import shapes

Schema = dict[str, Any]
Errors = tuple[type[errors.FirstwordError], ...]

SCHEMAS = "#/components/schemas/"

ALWAYS: Errors = (
    errors.MalformedRequest,
    errors.HeadersTooLarge,
    errors.TooManyConnections,
    errors.Internal,
)
ONCE_OPEN: Errors = (*ALWAYS, errors.NotReady)

EVERY_RESPONSE = ("x-request-id", "openai-processing-ms")


def operation(
    summary: str,
    content: Schema,
    kinds: Errors,
    parameters: tuple[Schema, ...] = (),
    *,
    headers: tuple[str, ...] = (),
    has_keys: bool = False,
    status: str = "200",
) -> Schema:
    """`has_keys`: a key is needed here."""
    always = {name: shapes.HEADERS[name] | {"required": True} for name in EVERY_RESPONSE}
    described: Schema = {
        "summary": summary,
        "responses": {
            status: {
                "description": summary + ".",
                "headers": always | {name: header(name) for name in headers},
                "content": content,
            },
            **error_responses((*kinds, errors.Unauthorized) if has_keys else kinds),
        },
    }
    if parameters:
        described["parameters"] = list(parameters)
    if has_keys:
        described["security"] = [{"bearer": []}]
    return described


def error_responses(kinds: Errors) -> Schema:
    responses: Schema = {}
    for status in sorted({kind.status for kind in kinds}):
        codes = [f"`{kind.code}`" for kind in kinds if kind.status == status]
        extra = {401: ("www-authenticate",), 429: ("retry-after", "retry-after-ms")}
        extra[503] = extra[429]
        headers = (*EVERY_RESPONSE, *extra.get(status, ()))
        responses[str(status)] = {
            "description": "With the code " + " or ".join(codes),
            "headers": {name: header(name) for name in headers},
            "content": json_content("ErrorBody"),
        }
    return responses


def header(name: str) -> Schema:
    return {"$ref": f"#/components/headers/{name}"}


def parameter(name: str, where: str = "path", schema: Schema | None = None) -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema or {"type": "string"}}


def json_content(shape: str) -> Schema:
    return {"application/json": {"schema": {"$ref": SCHEMAS + shape}}}


def text_content(media_type: str) -> Schema:
    return {media_type: {"schema": {"type": "string"}}}


def any_of(*shapes: str) -> Schema:
    return {"anyOf": [{"$ref": SCHEMAS + shape} for shape in shapes]}

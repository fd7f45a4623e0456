"""A JSON body as the struct it has to be. Every refusal names the field and what was expected."""

from __future__ import annotations

import asyncio
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from server.api.chat import read_body
from server.api.field_error import LONGEST_NAME_SHOWN, field_error
from server.errors import InvalidBody, InvalidParameter, RequestTimeout, UnknownParameter
from server.settings import Settings
from server.strict_json import json_type, parse_json

Shape = TypeVar("Shape", bound=msgspec.Struct)

_SMALL_BODY_BYTES = 65_536
"""Parsed on the event loop in a few milliseconds at most."""


async def read_struct(request: Request, settings: Settings, shape: type[Shape]) -> Shape:
    """Raises the errors of a body that is too slow, too large or not of that shape; `ClientDisconnect`."""
    try:
        async with asyncio.timeout(settings.http.body_timeout_s):
            body = await read_body(request, settings.limits.max_body_bytes)
    except TimeoutError:
        raise RequestTimeout(f"the body was not whole after {settings.http.body_timeout_s:g} s") from None
    if len(body) > _SMALL_BODY_BYTES:
        return await asyncio.to_thread(to_struct, body, shape)
    return to_struct(body, shape)


def to_struct(body: bytes, shape: type[Shape]) -> Shape:
    """Raises `InvalidBody`, `UnknownParameter` or `InvalidParameter`."""
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise InvalidBody(f"the body must be a JSON object, not {json_type(fields)}")
    known = shape.__struct_fields__
    for name in fields:
        if name not in known:
            shown = name[:LONGEST_NAME_SHOWN]
            close = difflib.get_close_matches(shown, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UnknownParameter(f"{shown!r} is not supported here{hint}", param=shown)
    _refuse_infinity(fields)
    try:
        return msgspec.convert(fields, shape)
    except msgspec.ValidationError as error:
        raise field_error(error) from None


def _refuse_infinity(fields: Mapping[str, Any]) -> None:
    """`1e400` is a number in JSON, and none that could be stored or compared."""
    level: list[tuple[str, Any]] = list(fields.items())
    while level:
        for param, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidParameter(f"{param}: the number is too large", param=param)
        level = [
            (param, child)
            for param, value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]

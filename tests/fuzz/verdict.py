"""Whether an answer is one that the server may give."""

from __future__ import annotations

import json
from typing import Any

from fuzz.case import SMUGGLED, Case
from fuzz.exchange import Exchange, Response
from wire import take_apart

ALLOWED = frozenset({200, 202, 206, 304, 307, 400, 401, 403, 404, 405, 408, 413, 416, 429, 431})
_WITHOUT_BODY = frozenset({204, 304})
_BEFORE_THE_APPLICATION = frozenset({"malformed_request", "headers_too_large"})
"""Codes of errors from which no request came to be that could have an id."""


def judge(case: Case, exchanged: Exchange) -> list[str]:
    """What is wrong with it, in words; nothing when all is well."""
    wrong = [fault for response in exchanged.responses if response.complete for fault in _faults(response)]
    answered = sum(response.complete for response in exchanged.responses)
    if case.answers is not None and answered < case.answers:
        wrong.append(f"{answered} answers to {case.answers} requests: {exchanged.received[-200:]!r}")
    if SMUGGLED in exchanged.received:
        wrong.append("a part of a body was answered as if it were a request")
    return wrong


def _faults(response: Response) -> list[str]:
    if response.status not in ALLOWED:
        return [f"status {response.status}: {response.body[:200]!r}"]
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if response.status < 400:
        return _success_faults(response, media_type)
    if not response.has_body:
        return []
    if response.headers.get("content-type") != "application/json":
        return [f"an error {response.status} of the type {media_type!r}: {response.body[:200]!r}"]
    return _envelope_faults(response)


def _success_faults(response: Response, media_type: str) -> list[str]:
    if "x-request-id" not in response.headers:
        return ["no x-request-id"]
    if not response.has_body or response.status not in (200, 202):
        return []
    try:
        if media_type == "application/json":
            json.loads(response.body)
        elif media_type == "text/event-stream":
            stream = take_apart(200, response.headers, response.body)
            assert stream.done, "the stream has no end"
    except (ValueError, AssertionError) as error:
        return [f"a {media_type} that is none: {error!r}"]
    return []


def _envelope_faults(response: Response) -> list[str]:
    try:
        body: Any = json.loads(response.body)
        error = body["error"]
        assert set(body) == {"error"}
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        assert isinstance(error["code"], str)
        assert error["param"] is None or isinstance(error["param"], str)
    except (ValueError, LookupError, TypeError, AssertionError):
        return [f"an error {response.status} in another shape: {response.body[:200]!r}"]
    if error["code"] not in _BEFORE_THE_APPLICATION and "x-request-id" not in response.headers:
        return ["no x-request-id"]
    return []

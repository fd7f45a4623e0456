"""The bytes of a request, made before its turn is due."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loadtest.client.address import Address
from loadtest.plan import Plan
from loadtest.workload.conversation import Message

_encode = msgspec.json.Encoder().encode


class Requests:
    def __init__(self, address: Address, plan: Plan, api_key: str | None) -> None:
        self._path = address.path
        authorization = f"authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = (
            f"host: {address.authority}\r\naccept: text/event-stream, application/json\r\n"
            f"accept-encoding: identity\r\ncontent-type: application/json\r\n{authorization}"
        )
        self._max_tokens = plan.max_tokens
        self._fields: dict[str, object] = {
            "model": plan.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **plan.extra_body,
        }

    def completion(self, messages: Sequence[Message], max_tokens: int | None, request_id: str) -> bytes:
        """A streamed chat completion that asks for its usage."""
        return self._post("/chat/completions", self._body(messages, max_tokens), request_id)

    def prewarm(self, messages: Sequence[Message], request_id: str) -> bytes:
        """The same body with what has been typed of the last message so far."""
        return self._post("/chat/prewarm", self._body(messages, None), request_id)

    def _body(self, messages: Sequence[Message], max_tokens: int | None) -> bytes:
        body = {**self._fields, "messages": messages}
        if (limit := max_tokens or self._max_tokens) is not None:
            body["max_tokens"] = limit
        return _encode(body)

    def _post(self, path: str, body: bytes, request_id: str) -> bytes:
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\n{self._headers}"
            f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

"""The target's HTTP: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import json

import pytest
from target_site import CHAT, Serve, chat, request

from server.target import connection as connection_module

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "said"),
    [
        ("GET", "/v2/nothing", b"", 404, "nothing at /v2/nothing"),
        ("GET", "/v1/models/other", b"", 404, "/v1/models/other"),
        ("GET", CHAT, b"", 405, "is for POST"),
        ("HEAD", "/health", b"", 405, ""),
        ("POST", CHAT, b"{", 400, "not JSON"),
        ("POST", CHAT, b"", 400, "not JSON"),
        ("POST", CHAT, b'{"messages": []}', 400, "messages"),
        ("POST", CHAT, b'{"messages": "hello"}', 400, "messages"),
        ("POST", CHAT, b'{"messages": [{"role": "user", "content": 5}]}', 400, "content"),
        ("POST", CHAT, b'{"messages": [{"role": "user"}], "max_tokens": 0}', 400, "max_tokens"),
        ("POST", CHAT, b'{"messages": [{"role": "user"}], "n": 2}', 400, "$.n"),
        ("POST", CHAT, b'{"x": ' + b"[" * 100_000, 400, "deep"),
        ("POST", CHAT, b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "JSON"),
        ("POST", "/v1/completions", b'{"prompt": ["two", "texts"]}', 400, "prompt"),
        ("POST", "/v1/completions", b'{"prompt": []}', 400, "prompt"),
    ],
)
async def test_what_cannot_be_served_is_told_in_the_one_shape_and_the_connection_stays(
    serve: Serve, method: str, path: str, content: bytes, status: int, said: str
) -> None:
    site = await serve()
    response = await site.http.request(method, path, content=content)
    assert response.status_code == status
    if method != "HEAD":
        error = response.json()["error"]
        assert said in error["message"]
        assert set(error) == {"message", "type", "param", "code"}
    if status == 405:
        assert response.headers["allow"] in ("GET", "POST")
    assert "connection" not in response.headers
    assert (await site.http.get("/health")).status_code == 200


async def test_a_head_of_forty_kilobytes_in_pieces_is_taken(serve: Serve) -> None:
    site = await serve()
    sent = request(b"", *["x: " + "y" * 97] * 400, "connection: close", method="GET", path="/health")
    received = await site.raw(*(sent[at : at + 9_000] for at in range(0, len(sent), 9_000)))
    assert received.startswith(b"HTTP/1.1 200 OK")


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    site = await serve()
    one, two = (json.dumps(chat(stream=True, max_tokens=n)).encode() for n in (3, 5))
    received = await site.raw(
        request(one, "x-request-id: first") + request(two, "x-request-id: second", "connection: close")
    )
    first, second = received.split(b"x-request-id: second")
    assert first.count(b'"content":') == 1 + 3
    assert second.count(b'"content":') == 1 + 5
    assert received.endswith(b"0\r\n\r\n")


async def test_when_many_are_pipelined_then_all_are_answered(serve: Serve) -> None:
    site = await serve()
    body = json.dumps(chat(max_tokens=1)).encode()
    received = await site.raw(request(body) * 99 + request(body, "connection: close"))
    assert received.count(b"HTTP/1.1 200 OK") == 100
    assert len(await site.records(100)) == 100


async def test_a_chunked_body_in_small_pieces_is_read(serve: Serve) -> None:
    site = await serve()
    body = json.dumps(chat(max_tokens=1)).encode()
    sent = f"POST {CHAT} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    sent += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:9], body[9:])) + b"0\r\n\r\n"
    received = await site.raw(*(sent[at : at + 7] for at in range(0, len(sent), 7)))
    assert received.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 200_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431"),
        (request(b"x" * 2_000), b"413"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
    ],
)
async def test_what_is_too_large_or_no_http_is_told_and_the_connection_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: bytes
) -> None:
    monkeypatch.setattr(connection_module, "MAX_BODY_BYTES", 1_000)
    site = await serve()
    received = await site.raw(sent)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in received
    await site.alone()


async def test_when_the_client_expects_a_continue_then_it_gets_one(serve: Serve) -> None:
    body = json.dumps(chat(max_tokens=1)).encode()
    whole = request(body, "expect: 100-continue", "connection: close")
    received = await (await serve()).raw(whole[: -len(body)], body)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_a_stream_for_http_1_0_is_refused(serve: Serve) -> None:
    body = json.dumps(chat(stream=True)).encode()
    received = await (await serve()).raw(request(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert received.startswith(b"HTTP/1.1 400")
    assert b"HTTP/1.0 cannot" in received

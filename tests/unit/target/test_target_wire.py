"""The target as a load tester meets it: what it answers, and what its log says of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from target_site import CHAT, TIMER_S, Serve, chat, request, text_of

pytestmark = pytest.mark.anyio


async def test_a_stream_is_role_tokens_finish_usage_done(serve: Serve) -> None:
    site = await serve()
    chunks, done = await site.stream(max_tokens=5, stream_options={"include_usage": True})
    role, *tokens, finish, usage = chunks
    assert done
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(tokens) == 5
    assert all(chunk["choices"][0]["delta"]["content"] for chunk in tokens)
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in (role, *tokens))
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "length")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 5
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1


async def test_when_usage_is_not_asked_for_then_none_comes(serve: Serve) -> None:
    chunks, _ = await (await serve()).stream(max_tokens=2)
    assert all(chunk["choices"] for chunk in chunks)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 7),
        ({"max_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 40}, 40),
        ({"max_tokens": 20, "min_tokens": 30, "stop": ["o"], "ignore_eos": False}, 20),
    ],
)
async def test_an_answer_has_exactly_the_tokens_that_were_asked_for(
    serve: Serve, fields: dict[str, Any], tokens: int
) -> None:
    site = await serve(tokens=7)
    chunks, _ = await site.stream(**fields)
    assert len(chunks) == tokens + 2


async def test_an_answer_in_one_piece_says_the_same_as_its_stream(serve: Serve) -> None:
    site = await serve()
    chunks, _ = await site.stream(max_tokens=30)
    whole = (await site.http.post(CHAT, json=chat(max_tokens=30))).json()
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": text_of(chunks)}
    assert whole["usage"]["completion_tokens"] == 30


async def test_a_second_turn_takes_the_first_from_the_prefix_cache(serve: Serve) -> None:
    site = await serve()
    first = chat("word " * 100)
    answer = (await site.http.post(CHAT, json=first)).json()
    first["messages"] += [answer["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    usage = (await site.http.post(CHAT, json=first)).json()["usage"]
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    expected = answer["usage"]["prompt_tokens"] // 32 * 32
    assert usage["prompt_tokens_details"]["cached_tokens"] == expected > 0
    records = await site.records(2)
    assert [record["cached_tokens"] for record in records] == [0, expected]
    assert [record["prompt_tokens"] for record in records][1] == usage["prompt_tokens"]


async def test_text_in_parts_counts_like_plain_text(serve: Serve) -> None:
    site = await serve()
    parts = [{"type": "text", "text": "Which port "}, {"type": "text", "text": "is it?"}]
    bodies = [chat(), {"messages": [{"role": "user", "content": parts}]}]
    answers = [(await site.http.post(CHAT, json=body)).json() for body in bodies]
    assert answers[0]["usage"]["prompt_tokens"] == answers[1]["usage"]["prompt_tokens"]


@pytest.mark.parametrize("prompt", ["Once upon", ["Once upon"], [1, 2, 3]])
async def test_the_older_completions_are_there_too(serve: Serve, prompt: Any) -> None:
    site = await serve()
    body = {"prompt": prompt, "max_tokens": 3}
    whole = (await site.http.post("/v1/completions", json=body)).json()
    streamed = (await site.http.post("/v1/completions", json=body | {"stream": True})).text
    chunks = [json.loads(event[6:]) for event in streamed.split("\n\n")[:-2]]
    assert whole["object"] == "text_completion"
    assert whole["usage"]["prompt_tokens"] == 3
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"] != ""
    assert streamed.endswith("data: [DONE]\n\n")


async def test_models_and_health_are_there(serve: Serve) -> None:
    site = await serve(model="mine")
    assert [model["id"] for model in (await site.http.get("/v1/models")).json()["data"]] == ["mine"]
    assert (await site.http.get("/v1/models/mine")).json()["id"] == "mine"
    assert (await site.http.get("/health?deep=1")).status_code == 200
    assert (await site.http.get("/health/ready")).status_code == 200


async def test_typed_ahead_requests_are_accepted_and_in_the_log(serve: Serve) -> None:
    site = await serve()
    response = await site.http.post("/v1/chat/prewarm", json=chat(), headers={"x-request-id": "ahead"})
    assert (response.status_code, response.json()) == (202, {})
    (record,) = await site.records(1)
    assert (record["request_id"], record["outcome"], record["tokens"]) == ("ahead", "prewarmed", 0)


async def test_the_log_tells_each_moment_in_order_and_the_known_ttft(serve: Serve) -> None:
    site = await serve(ttft_ms=40, interval_ms=5)
    response = await site.http.post(
        CHAT, json=chat(stream=True, max_tokens=4), headers={"x-request-id": "a b"}
    )
    (record,) = await site.records(1)
    assert response.headers["x-request-id"] == record["request_id"] == "a b"
    moments = [
        record[name]
        for name in (
            "arrived_at",
            "received_at",
            "engine_first_token_at",
            "first_token_at",
            "last_token_at",
            "ended_at",
        )
    ]
    assert moments == sorted(moments)
    assert record["engine_first_token_at"] - record["received_at"] >= 0.040 - TIMER_S
    assert record["last_token_at"] - record["first_token_at"] >= 0.015 - 2 * TIMER_S
    assert (record["outcome"], record["tokens"], record["frames"], record["status"]) == ("ok", 4, 4, 200)


@pytest.mark.parametrize("sent", [b"\xe4\xf6", b"x" * 129, b"a\tb", b""])
async def test_a_request_id_that_cannot_be_sent_back_is_replaced(serve: Serve, sent: bytes) -> None:
    site = await serve()
    response = await site.http.post(CHAT, json=chat(), headers={b"x-request-id": sent})
    (record,) = await site.records(1)
    assert response.headers["x-request-id"] == record["request_id"]
    assert len(record["request_id"]) == 32


async def test_when_the_role_comes_early_then_no_token_does(serve: Serve) -> None:
    site = await serve(early_role=True, ttft_ms=50)
    body = json.dumps(chat(stream=True, max_tokens=2)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request(body, "connection: close"))
    assert b'"content":"Word"' not in await reader.readuntil(b'"role":"assistant"')
    rest = await reader.read()
    assert rest.count(b'"content":"') == 3
    writer.close()
    (record,) = await site.records(1)
    assert record["first_token_at"] - record["received_at"] >= 0.050 - TIMER_S

"""What an answer can be besides text: several, with logprobs, with tool calls, with reasoning, as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateways import Gateway, MakeSettings, running
from wire import CHAT, Stream, ask, question

# Importing vLLM for its parsers warns of what it will deprecate itself, and takes a while.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default"), pytest.mark.timeout(240)]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich 👋"}}\n</tool_call>'


@pytest.fixture
async def caller(make_settings: MakeSettings) -> AsyncIterator[Gateway]:
    """Its model reasons, says something and calls a tool."""
    settings = make_settings(
        engine__tool_parser="hermes",
        engine__reasoning_parser="qwen3",
        **{"engine.simulated.reply": f"<think>hm, a tool</think>Let me see. {CALL}"},
    )
    async with running(settings) as gateway:
        yield gateway


async def post(gateway: Gateway, body: dict[str, Any]) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as client:
        response = await client.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def deltas(stream: Stream, index: int = 0) -> list[dict[str, Any]]:
    return [
        choice["delta"] for chunk in stream.chunks for choice in chunk["choices"] if choice["index"] == index
    ]


async def test_several_answers_come_side_by_side_each_whole(gateway: Gateway) -> None:
    body = question(n=3, stream_options={"include_usage": True})
    stream = await ask(gateway.url, body)
    assert stream.done
    for index in range(3):
        mine = deltas(stream, index)
        assert mine[0] == {"role": "assistant", "content": ""}
        assert "".join(delta.get("content") or "" for delta in mine).endswith("👋")
        assert mine[-1] == {}
    assert stream.finish_reasons == ["stop"] * 3
    assert [("firstword" in chunk) for chunk in stream.chunks].count(True) == 2
    assert stream.timing["ttft"] > 0
    whole = await post(gateway, question(n=3))
    fixed = await post(gateway, question(n=3, max_tokens=7, ignore_eos=True))
    assert fixed["usage"]["completion_tokens"] == 21
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert all(choice["finish_reason"] == "stop" for choice in whole["choices"])


async def test_every_token_has_its_logprob_and_its_alternatives(gateway: Gateway) -> None:
    body = question(logprobs=True, top_logprobs=3, stream_options={"include_usage": True})
    stream = await ask(gateway.url, body)
    told = [
        token
        for chunk in stream.chunks
        for choice in chunk["choices"]
        if choice["logprobs"]
        for token in choice["logprobs"]["content"]
    ]
    assert len(told) == stream.chunks[-1]["usage"]["completion_tokens"]
    assert "".join(token["token"] for token in told) == stream.text
    assert all(bytes(token["bytes"]).decode() == token["token"] for token in told)
    assert all(len(token["top_logprobs"]) == 3 for token in told)
    whole = await post(gateway, question(logprobs=True))
    assert len(whole["choices"][0]["logprobs"]["content"]) == whole["usage"]["completion_tokens"]


async def test_a_tool_call_is_streamed_and_its_answer_continues_the_turn(caller: Gateway) -> None:
    stream = await ask(caller.url, question(tools=[WEATHER]))
    assert stream.finish_reasons == ["tool_calls"]
    pieces = [call for delta in deltas(stream) for call in delta.get("tool_calls", [])]
    assert (pieces[0]["type"], pieces[0]["function"]["name"]) == ("function", "get_weather")
    assert len([piece for piece in pieces if "id" in piece]) == 1
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert arguments == '{"city": "Zürich 👋"}'
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas(stream)) == "hm, a tool"
    assert stream.text == "Let me see. "
    assert "<tool_call>" not in stream.raw.decode()

    message = (await post(caller, question(tools=[WEATHER])))["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    assert message["message"]["reasoning_content"] == "hm, a tool"
    (call,) = message["message"]["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": arguments}

    answered = [
        *question()["messages"],
        message["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "Sunny. <|im_end|>"},
    ]
    again = await ask(caller.url, {"messages": answered, "tools": [WEATHER]})
    assert again.chunks[0]["firstword"]["turn"] == 1
    assert again.finish_reasons == ["tool_calls"]


async def test_reasoning_is_told_apart_counted_and_ends_the_wait_for_the_first_token(caller: Gateway) -> None:
    stream = await ask(caller.url, question(stream_options={"include_usage": True}))
    assert stream.text.startswith("Let me see.")
    assert "<think>" not in stream.raw.decode()
    usage = stream.chunks[-1]["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]
    assert stream.timing["ttft"] > 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_call_can_be_demanded(caller: Gateway, choice: Any) -> None:
    stream = await ask(caller.url, question(tools=[WEATHER], tool_choice=choice))
    assert stream.finish_reasons == ["tool_calls"]


async def test_no_tool_is_called_when_none_may_be(caller: Gateway) -> None:
    stream = await ask(caller.url, question(tools=[WEATHER], tool_choice="none"))
    assert stream.finish_reasons == ["stop"]
    assert all("tool_calls" not in delta for delta in deltas(stream))


async def test_the_service_tier_is_told_back_and_priority_needs_leave(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTWORD_AUTH__API_KEYS", '{"acme": "key-a", "beta": "key-b"}')
    async with running(make_settings(auth__priority_tenants=["acme"])) as gateway:
        body = question(service_tier="priority")
        stream = await ask(gateway.url, body, authorization="Bearer key-a")
        assert {chunk["service_tier"] for chunk in stream.chunks} == {"priority"}
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
            refused = await client.post(CHAT, json=body, headers={"authorization": "Bearer key-b"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert refused.json()["error"]["param"] == "service_tier"


async def test_a_demanded_call_alone_leaves_a_refusal_in_the_content(make_settings: MakeSettings) -> None:
    nothing_found = {"retrieval__min_score": 0.99, "retrieval__nothing_found": "refuse"}
    async with running(make_settings(engine__tool_parser="hermes", **nothing_found)) as gateway:
        demanded = await ask(gateway.url, question(tools=[WEATHER], tool_choice="required"))
    assert demanded.text == gateway.parts.settings.prompt.nothing_found_reply, "nobody asked for JSON"
    assert b'"refusal"' not in demanded.raw

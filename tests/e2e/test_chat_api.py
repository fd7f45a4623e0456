"""The wire contract of `POST /v1/chat/completions`, on the simulated engine."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from gateways import Gateway, MakeSettings, running
from server.telemetry.timing import PHASES
from wire import CHAT, Stream, ask, events, question

pytestmark = pytest.mark.anyio


def client_for(gateway: Gateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False)


async def idle(gateway: Gateway) -> None:
    """Until nothing is left of any turn: no permit, no engine request, no KV block."""
    engine = gateway.engine
    async with asyncio.timeout(5):
        while (
            gateway.parts.admission.running_turns
            or gateway.parts.admission.queued_turns
            or engine.load.running_requests
            or engine.cache.blocks_in_use
        ):
            await asyncio.sleep(0.005)


def assert_whole(stream: Stream) -> None:
    assert stream.done
    assert stream.error is None
    assert len(stream.finish_reasons) == 1


async def test_a_stream_is_role_content_finish_usage_done(gateway: Gateway) -> None:
    stream = await ask(gateway.url, question(stream_options={"include_usage": True}))
    assert_whole(stream)
    role, *content, finish, usage = stream.chunks
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in content)
    assert finish["choices"][0]["delta"] == {}
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert (
        usage["usage"]["total_tokens"]
        == usage["usage"]["prompt_tokens"] + usage["usage"]["completion_tokens"]
    )
    assert "simulated engine" in stream.text
    assert stream.text.endswith("👋")
    for chunk in stream.chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["id"], chunk["created"], chunk["model"]) == (role["id"], role["created"], role["model"])


async def test_headers_are_those_of_the_contract(gateway: Gateway) -> None:
    headers = (await ask(gateway.url, question())).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 0
    assert "prefill;dur=" in headers["server-timing"]


async def test_there_is_no_usage_chunk_unless_it_is_asked_for(gateway: Gateway) -> None:
    stream = await ask(gateway.url, question())
    assert all(chunk["choices"] for chunk in stream.chunks)


async def test_sources_come_before_the_text_and_can_be_opened(gateway: Gateway) -> None:
    stream = await ask(gateway.url, question("How many days to return an item?"))
    first = stream.chunks[0]["firstword"]
    assert first["turn"] == 1
    assert [citation["index"] for citation in first["citations"]] == [1, 2]
    best = first["citations"][0]
    assert best["filename"] == "returns.md"
    async with client_for(gateway) as client:
        passage = (await client.get(f"/v1/passages/{best['chunk_id']}")).json()
        assert (await client.get("/v1/passages/none")).status_code == 404
    assert "45 days" in passage["text"]
    assert passage["heading_path"] == ["Returns", "Time limit"]


async def test_phases_are_consecutive_and_add_up_to_ttft(gateway: Gateway) -> None:
    timing = (await ask(gateway.url, question())).timing
    plain = {"plain_prompt_tokens", "plain_computed_tokens"}
    assert set(timing) == {*PHASES, "ttft", "prompt_tokens", "cached_tokens"} | plain
    assert all(timing[phase] >= 0 for phase in PHASES)
    assert sum(timing[phase] for phase in PHASES) == pytest.approx(timing["ttft"], abs=0.05)


async def test_ttft_is_what_a_client_measures(gateway: Gateway) -> None:
    differences = []
    async with client_for(gateway) as client:
        await client.get("/health/live")
        for _ in range(5):
            started_at = time.monotonic()
            first_text_at = None
            async with client.stream("POST", CHAT, json=question(stream=True)) as response:
                async for chunk in events(response):
                    if first_text_at is None and chunk["choices"][0]["delta"].get("content"):
                        first_text_at = time.monotonic()
                    if "timing" in chunk.get("firstword", {}):
                        ttft_ms = chunk["firstword"]["timing"]["ttft"]
            assert first_text_at is not None
            differences.append((first_text_at - started_at) * 1_000 - ttft_ms)
    # A client that shares this event loop reads late when the loop is busy; it never reads early.
    assert min(differences) > -1
    assert sorted(differences)[2] < 250


async def test_a_whole_answer_in_one_response(gateway: Gateway) -> None:
    async with client_for(gateway) as client:
        response = await client.post(CHAT, json=question())
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert "simulated engine" in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] > 0
    assert body["firstword"]["citations"]
    assert body["firstword"]["timing"]["ttft"] > 0


async def test_max_tokens_ends_with_length_and_stop_strings_never_show(gateway: Gateway) -> None:
    assert (await ask(gateway.url, question(max_tokens=3))).finish_reasons == ["length"]
    stopped = await ask(gateway.url, question(stop=["measures"]))
    assert stopped.finish_reasons == ["stop"]
    assert stopped.text == "This is the simulated engine: it "


async def test_a_second_turn_is_counted_and_finds_the_prefix_in_the_cache(gateway: Gateway) -> None:
    first = await ask(gateway.url, question())
    messages = [
        {"role": "user", "content": "How long can I return an item?"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And on Sunday?"},
    ]
    second = await ask(gateway.url, {"messages": messages})
    assert second.chunks[0]["firstword"]["turn"] == 2
    assert second.timing["cached_tokens"] > 0


async def test_retrieval_can_be_left_out(gateway: Gateway) -> None:
    stream = await ask(gateway.url, question(retrieval={"enabled": False}))
    assert stream.chunks[0]["firstword"]["citations"] == []
    assert stream.timing["embed"] == stream.timing["search"] == 0
    stream = await ask(gateway.url, question(retrieval={"top_k": 1}))
    assert len(stream.chunks[0]["firstword"]["citations"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b'{"messages": []}', 400, "messages"),
        (b'{"messages": [{"role": "user", "content": "x"}], "nonsense": 1}', 400, "nonsense"),
        (b'{"messages": [{"role": "user", "content": "x"}], "model": "gpt-5"}', 404, "model"),
        (b'{"messages": [{"role": "user", "content": "' + b"word " * 20_000 + b'"}]}', 400, "messages"),
        (b" " * 1_000_001, 413, None),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_bad_request_has_its_status_and_the_one_shape(
    gateway: Gateway, body: bytes, status: int, param: str | None, stream: bool
) -> None:
    if stream and body.startswith(b'{"messages"'):
        body = body.replace(b"{", b'{"stream": true, ', 1)
    async with client_for(gateway) as client:
        response = await client.post(CHAT, content=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    await idle(gateway)


async def test_a_body_that_never_says_its_length_is_bounded_too(gateway: Gateway) -> None:
    async def endless() -> object:
        for _ in range(40):
            yield b" " * 50_000

    async with client_for(gateway) as client:
        response = await client.post(CHAT, content=endless())
    assert response.status_code == 413


async def test_wrong_paths_and_methods_have_the_one_shape(gateway: Gateway) -> None:
    async with client_for(gateway) as client:
        missing, wrong = await client.get("/v1/nothing"), await client.get(CHAT)
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["code"] == "not_found"
    assert wrong.json()["error"]["code"] == "method_not_allowed"


async def test_a_bug_is_a_500_of_our_shape_with_its_request_named(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(gateway.parts.assembler), "assemble", lambda *_: 1 / 0)
    async with client_for(gateway) as client:
        for body in (question(), question(stream=True)):
            response = await client.post(CHAT, json=body)
            assert response.status_code == 500
            assert response.headers["x-request-id"] in response.json()["error"]["message"]
    await idle(gateway)


async def test_silence_is_filled_with_comments_before_the_first_token_too(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(http__heartbeat_s=0.05, **{"engine.simulated.prefill_tokens_per_s": 300.0})
    async with running(settings) as gateway:
        stream = await ask(gateway.url, question())
    assert_whole(stream)
    assert len(stream.comments) >= 2
    assert set(stream.comments) == {": keep-alive"}
    assert stream.raw.startswith(b": keep-alive")


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_everything(
    make_settings: MakeSettings, phase: str, streamed: bool
) -> None:
    slow = {"engine.simulated.prefill_tokens_per_s": 20.0} if phase == "prefill" else {}
    settings = make_settings(**slow, **{"engine.simulated.token_interval_ms": 500.0})
    async with running(settings) as gateway:
        async with client_for(gateway) as client:
            asking = asyncio.create_task(client.post(CHAT, json=question(stream=streamed)))
            while not gateway.engine.load.running_requests:
                await asyncio.sleep(0.005)
            if phase == "decode":
                while not gateway.engine.cache.blocks_in_use:
                    await asyncio.sleep(0.005)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await idle(gateway)
        await asyncio.to_thread(gateway.parts.turn_log.flush)
        (turn,) = gateway.parts.turn_log.latest("anonymous", 10)
    assert turn.outcome == "disconnected"


async def test_a_client_that_leaves_while_queued_never_reaches_the_engine(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(admission__max_running_turns=1, **{"engine.simulated.token_interval_ms": 20.0})
    async with running(settings) as gateway:
        running_turn = asyncio.create_task(ask(gateway.url, question()))
        while not gateway.parts.admission.running_turns:
            await asyncio.sleep(0.005)
        async with client_for(gateway) as client:
            waiting = asyncio.create_task(client.post(CHAT, json=question(stream=True)))
            while not gateway.parts.admission.queued_turns:
                await asyncio.sleep(0.005)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            while gateway.parts.admission.queued_turns:
                await asyncio.sleep(0.005)
        assert_whole(await running_turn)
        assert gateway.engine.load.waiting_requests == 0


async def test_when_the_queue_is_full_a_turn_is_refused_and_told_when_to_return(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(admission__max_running_turns=1, admission__max_queued_turns=0)
    async with running(settings) as gateway, client_for(gateway) as client:
        first = asyncio.create_task(ask(gateway.url, question()))
        while not gateway.parts.admission.running_turns:
            await asyncio.sleep(0.005)
        response = await client.post(CHAT, json=question(stream=True))
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["type"] == "rate_limit_error"
        assert_whole(await first)


async def test_keys_open_the_api_and_separate_tenants(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTWORD_AUTH__API_KEYS", '{"acme": "key-a", "beta": "key-b"}')
    async with running(make_settings()) as gateway, client_for(gateway) as client:
        for path in ("/v1/models", "/v1/turns"):
            assert (await client.get(path)).status_code == 401
        refused = await client.post(CHAT, json=question())
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        one, two = {"authorization": "Bearer key-a"}, {"authorization": "Bearer key-b"}
        first = await ask(gateway.url, question(), **one)
        again = await ask(gateway.url, question(), **one)
        other = await ask(gateway.url, question(), **two)
        assert first.timing["cached_tokens"] == other.timing["cached_tokens"] == 0
        assert again.timing["cached_tokens"] > 0
        await asyncio.to_thread(gateway.parts.turn_log.flush)
        mine = (await client.get("/v1/turns", headers=one)).json()["data"]
        theirs = (await client.get("/v1/turns", headers=two)).json()["data"]
        assert (len(mine), len(theirs)) == (2, 1)
        assert (await client.get(f"/v1/turns/{mine[0]['id']}", headers=two)).status_code == 404


async def test_fifty_streams_at_once_are_each_whole(gateway: Gateway) -> None:
    streams = await asyncio.gather(*(ask(gateway.url, question(f"Question {n}?")) for n in range(50)))
    for stream in streams:
        assert_whole(stream)
    assert len({stream.chunks[0]["id"] for stream in streams}) == 50
    await idle(gateway)

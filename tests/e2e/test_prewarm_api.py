"""`POST /v1/chat/prewarm`: what it prefills, what it gives way to, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from conversations import (
    PREWARM,
    Given,
    Talk,
    asked_about,
    assistant,
    client_of,
    prewarm,
    prewarmed,
    running_prewarms,
    until,
    user,
    whole_blocks,
)
from gateways import Gateway, MakeSettings, running
from retrieval.errors import StoreUnusable
from server.engine.simulated import Fault
from wire import question

pytestmark = pytest.mark.anyio

STARTED = {"object": "chat.prewarm", "status": "started"}
BUSY = {"object": "chat.prewarm", "status": "dropped", "reason": "busy"}
SLOW = {"engine.simulated.prefill_tokens_per_s": 100.0}
"""A prompt with two passages takes seconds: whatever runs is still running when it is looked at."""
SLOW_TOKENS = {"engine.simulated.token_interval_ms": 100.0}
BARE = {"retrieval": {"enabled": False}}


async def outcomes(gateway: Gateway) -> dict[str, int]:
    """Prewarms by what became of them; those that did not happen are left out."""
    lines = gateway.parts.metrics.render().decode().splitlines()
    found = [line for line in lines if line.startswith("firstword_prewarms_total")]
    counts = {line.split('"')[1]: int(float(line.split()[-1])) for line in found}
    return {outcome: count for outcome, count in counts.items() if count}


async def newest_turn(gateway: Gateway) -> dict[str, Any]:
    async with client_of(gateway) as client:
        turn: dict[str, Any] = (await client.get("/v1/turns?limit=1")).json()["data"][0]
    return turn


def engine_is_idle(gateway: Gateway) -> bool:
    engine = gateway.engine
    return not (engine.load.running_requests or engine.load.waiting_requests or engine.cache.blocks_in_use)


# What is prefilled


async def test_on_every_turn_only_the_question_is_left_to_compute(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        block_size = gateway.engine.limits.block_size
        for topic in ("bicycles", "cheese", "gliders"):
            text = asked_about(topic, 3)
            response = await talk.type(text[: len(text) * 3 // 4])
            assert (response.status_code, response.json()) == (202, STARTED)
            await prewarmed()
            ahead = given.prewarms[-1]
            stream = await talk.say(text)
            prompt = given.turns[-1]
            assert prompt[: len(ahead)] == ahead, "what was prefilled is not the prompt's beginning"
            assert f"About {topic}:" in gateway.parts.template.decode(ahead)
            timing = stream.timing
            assert timing["cached_tokens"] >= whole_blocks(len(ahead), block_size)
            to_compute = timing["prompt_tokens"] - timing["cached_tokens"]
            assert to_compute <= len(prompt) - len(ahead) + block_size
            assert (await newest_turn(gateway))["prewarmed"] is True
        assert (await outcomes(gateway))["used"] == 3
        assert engine_is_idle(gateway)


async def test_what_is_ready_already_is_not_prefilled_again(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        for _ in range(3):
            assert (await talk.type(asked_about("bicycles"))).json() == STARTED
            await prewarmed()
        assert len(given.prewarms) == 1
        assert (await outcomes(gateway))["finished"] == 1


async def test_a_follow_up_without_documents_prefills_the_history(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway, BARE)
        await talk.say("Hello there. " * 20)
        await talk.type("And")
        await prewarmed()
        reply = gateway.parts.template.encode(talk.messages[1]["content"])
        before = given.turns[0] + reply
        assert given.prewarms[0][: len(before)] == before
        stream = await talk.say("And then?")
        assert stream.timing["cached_tokens"] >= whole_blocks(len(before), gateway.engine.limits.block_size)


async def test_a_guess_that_was_wrong_leaves_no_trace_in_the_prompt(library: MakeSettings) -> None:
    """Of two tenants who ask the same, the one who typed something else first has the same prompts."""
    settings = library(
        auth__api_keys={"acme": "key-a", "beta": "key-b"}, **{"engine.simulated.reply": "Always the same."}
    )
    async with running(settings) as gateway:
        given = Given(gateway)
        fields = {"retrieval": {"top_k": 1}}
        types, does_not = [
            Talk(gateway, fields, headers={"authorization": f"Bearer {key}"}) for key in ("key-a", "key-b")
        ]
        for topic, guessed, weight in (
            ("bicycles", "pianos", 1),
            ("cheese", "tunnels", 3),
            ("gliders", "pianos", 9),
        ):
            await types.type(asked_about(guessed, 2 * weight))
            await prewarmed()
            assert f"About {guessed}:" in given.texts()[-1]
            await types.say(asked_about(topic, weight))
            await does_not.say(asked_about(topic, weight))
            assert given.turns[-2] == given.turns[-1]
            assert f"About {guessed}:" not in given.text()


# What it gives way to


async def test_a_call_for_something_else_supersedes_what_runs_for_the_same_message(
    library: MakeSettings,
) -> None:
    async with running(library(**SLOW)) as gateway:
        given, load = Given(gateway), gateway.engine.load
        talk = Talk(gateway, messages=[user("Hi"), assistant("Hello.")])
        for n_calls, topic in enumerate(("bicycles", "cheese", "gliders"), start=1):
            assert (await talk.type(asked_about(topic, 5))).json() == STARTED
            await until(lambda n=n_calls: len(given.prewarms) == n)
            await until(lambda: (load.running_requests, load.waiting_requests) == (1, 0))
            assert len(running_prewarms()) == 1
        assert (await outcomes(gateway)) == {"superseded": 2}
        turn = asyncio.create_task(talk.say(asked_about("gliders", 5), max_tokens=1))
        await until(lambda: given.turns)
        await until(lambda: not running_prewarms())
        await until(lambda: (load.running_requests, load.waiting_requests) == (1, 0))
        turn.cancel()
        await asyncio.wait((turn,))
        await until(lambda: engine_is_idle(gateway))


async def test_a_call_that_wants_the_same_lets_it_go_on(library: MakeSettings) -> None:
    async with running(library(**{"engine.simulated.prefill_tokens_per_s": 500.0})) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"retrieval": {"top_k": 1}})
        text = asked_about("bicycles", 3)
        words = text.split(" ")
        for n_words in range(len(words) - 2, len(words) + 1):  # a word cut short would find something else
            assert (await talk.type(" ".join(words[:n_words]))).status_code == 202
        await prewarmed()
        told = await outcomes(gateway)
        assert told["finished"] >= 1
        assert "superseded" not in told
        assert len(given.prewarms) == told["finished"], "one was given up for another"


async def test_a_turn_that_starts_takes_the_engine_from_everyone_who_types(library: MakeSettings) -> None:
    async with running(library(**SLOW)) as gateway:
        given, typing = Given(gateway), Talk(gateway)
        await typing.type(asked_about("bicycles"))
        await until(lambda: gateway.engine.load.running_requests)
        await Talk(gateway, BARE).say("Hi", max_tokens=1)
        assert len(given.prewarms) == 1
        assert await outcomes(gateway) == {"superseded": 1}, "it went on beside the turn"
        assert engine_is_idle(gateway)


async def test_nothing_is_prefilled_while_a_turn_waits_in_the_queue(library: MakeSettings) -> None:
    settings = library(admission__max_running_turns=1, prewarm__max_running_share=1.0, **SLOW_TOKENS)
    async with running(settings) as gateway:
        given = Given(gateway)
        typing = Talk(gateway)
        first = asyncio.create_task(Talk(gateway, BARE).say("Hi", max_tokens=200, ignore_eos=True))
        await until(lambda: given.turns and not gateway.parts.admission.prefill_tokens)
        assert (await typing.type(asked_about("bicycles"))).json() == STARTED, "beside a turn there is room"
        await until(lambda: len(given.prewarms) == 1)
        await prewarmed()

        waiting = [asyncio.create_task(Talk(gateway, BARE).say(f"Hi {at}", max_tokens=1)) for at in range(3)]
        await until(lambda: gateway.parts.admission.queued_turns == 3)
        for topic in ("cheese", "gliders", "pianos"):
            assert (await typing.type(asked_about(topic))).json() == BUSY
        assert gateway.parts.admission.queued_turns == 3
        assert len(given.prewarms) == 1
        first.cancel()
        await asyncio.wait((first, *waiting))
        told = zip(given.requests, given.queued_turns, strict=True)
        assert all(not queued for request, queued in told if request.request_id.startswith("ahead_"))


async def test_a_turn_that_comes_while_a_guess_is_searched_for_keeps_it_from_the_engine(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = library(admission__max_running_turns=1, prewarm__max_running_share=1.0, **SLOW_TOKENS)
    async with running(settings) as gateway:
        given, typing, found = Given(gateway), Talk(gateway), asyncio.Event()
        search = gateway.parts.retriever.search

        async def slow_search(*query: Any) -> Any:
            await found.wait()
            return await search(*query)

        monkeypatch.setattr(gateway.parts.retriever, "search", slow_search)
        first = asyncio.create_task(Talk(gateway, BARE).say("Hi", max_tokens=200, ignore_eos=True))
        await until(lambda: given.turns and not gateway.parts.admission.prefill_tokens)
        assert (await typing.type(asked_about("bicycles"))).json() == STARTED
        second = asyncio.create_task(Talk(gateway, BARE).say("Hi again", max_tokens=1))
        await until(lambda: gateway.parts.admission.queued_turns == 1)
        found.set()
        await prewarmed()
        assert given.prewarms == []
        assert await outcomes(gateway) == {"dropped": 1}
        first.cancel()
        await asyncio.wait((first, second))


async def test_a_turn_that_comes_in_the_very_moment_keeps_a_guess_from_the_engine(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It joins the queue between the look at the queue and the first step of the prefill's task."""
    settings = library(admission__max_running_turns=1, prewarm__max_running_share=1.0, **SLOW_TOKENS)
    async with running(settings) as gateway:
        given, parts = Given(gateway), gateway.parts
        first = asyncio.create_task(Talk(gateway, BARE).say("Hi", max_tokens=200, ignore_eos=True))
        await until(lambda: given.turns and not parts.admission.prefill_tokens)
        place = parts.admission._turns.take(1, "another", 0)
        priced = parts.engine.prefill_tokens

        def priced_as_a_turn_comes(token_ids: Sequence[int], salt: str) -> int:
            if not parts.admission.queued_turns:
                asyncio.get_running_loop().call_soon(place.send, None)
            return priced(token_ids, salt)

        monkeypatch.setattr(parts.engine, "prefill_tokens", priced_as_a_turn_comes)
        assert (await Talk(gateway).type(asked_about("bicycles"))).json() == STARTED
        await prewarmed()
        assert parts.admission.queued_turns == 1
        assert given.prewarms == []
        with contextlib.suppress(asyncio.CancelledError):
            place.throw(asyncio.CancelledError())
        first.cancel()
        await asyncio.wait((first,))


async def test_beyond_its_share_of_the_permits_it_is_dropped(library: MakeSettings) -> None:
    async with running(library(prewarm__max_running_share=0.0, **SLOW_TOKENS)) as gateway:
        given, typing = Given(gateway), Talk(gateway)
        turn = asyncio.create_task(Talk(gateway, BARE).say("Hi", max_tokens=10))
        await until(lambda: given.turns and not gateway.parts.admission.prefill_tokens)
        assert (await typing.type(asked_about("bicycles"))).json() == BUSY
        await turn
        assert (await typing.type(asked_about("bicycles"))).json() == STARTED
        await prewarmed()
        assert len(given.prewarms) == 1


# What it leaves behind


async def test_without_its_message_a_guess_has_no_effect(library: MakeSettings) -> None:
    async with running(library(prewarm__guess_ttl_s=0.2)) as gateway:
        parts, talk = gateway.parts, Talk(gateway)
        await talk.say(asked_about("bicycles"))
        await until(lambda: not parts.admission.running_turns)
        entries, served = parts.ledger.store.n_entries, len(parts.order._roots)
        known, turn = dict(parts.ledger.recalled), await newest_turn(gateway)
        await talk.type(asked_about("gliders", 5))
        await Talk(gateway).type(asked_about("lanterns"))
        await prewarmed()
        assert (parts.ledger.store.n_entries, len(parts.order._roots)) == (entries, served)
        assert (dict(parts.ledger.recalled), await newest_turn(gateway)) == (known, turn)
        assert engine_is_idle(gateway)
        assert parts.guesses.running_tokens == 0

        await asyncio.sleep(0.3)
        await talk.say(asked_about("gliders", 5))
        assert (await newest_turn(gateway))["prewarmed"] is False
        assert "used" not in await outcomes(gateway)
        assert not any(parts.guesses._of.values()), "guesses that nobody came for"


async def test_one_key_has_so_many_guesses_and_the_oldest_is_given_up(library: MakeSettings) -> None:
    async with running(library(prewarm__max_per_key=2)) as gateway:
        topics = ("bicycles", "cheese", "gliders")
        for topic in topics:
            # A first message is known by its text alone: these have no beginning in common.
            await Talk(gateway).type(f"{topic}: {asked_about(topic)}")
            await prewarmed()
            assert sum(map(len, gateway.parts.guesses._of.values())) <= 2
        used = []
        for topic in topics:
            await Talk(gateway).say(f"{topic}: {asked_about(topic)}")
            used.append((await newest_turn(gateway))["prewarmed"])
        assert used == [False, True, True]


async def test_a_guess_that_is_given_up_for_another_ends_in_the_engine(library: MakeSettings) -> None:
    async with running(library(prewarm__max_per_key=1, **SLOW)) as gateway:
        given = Given(gateway)
        for n_calls, topic in enumerate(("bicycles", "cheese"), start=1):
            await Talk(gateway).type(f"{topic}: {asked_about(topic)}")
            await until(lambda n=n_calls: len(given.prewarms) == n)
        await until(lambda: len(running_prewarms()) == 1)
        assert gateway.engine.load.running_requests == 1
        assert gateway.engine.load.waiting_requests == 0
        assert await outcomes(gateway) == {"superseded": 1}


async def test_a_shutdown_ends_what_runs(library: MakeSettings) -> None:
    before = asyncio.all_tasks()
    async with running(library(**SLOW)) as gateway:
        given = Given(gateway)
        for topic in ("bicycles", "cheese"):
            await Talk(gateway).type(f"{topic}: {asked_about(topic)}")
        await until(lambda: len(given.prewarms) == 2)
        assert len(running_prewarms()) == 2
        engine = gateway.engine
    assert running_prewarms() == []
    await until(lambda: asyncio.all_tasks() <= before)
    assert await outcomes(gateway) == {"superseded": 2}, "the shutdown waited for them"
    assert (engine.load.running_requests, engine.load.waiting_requests) == (0, 0)


async def test_an_engine_that_fails_is_nobodys_error(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        gateway.engine.faults.append(Fault("raise"))
        assert (await talk.type(asked_about("bicycles"))).json() == STARTED
        await prewarmed()
        assert await outcomes(gateway) == {"failed": 1}
        assert (await talk.say(asked_about("bicycles"))).finish_reasons == ["stop"]
        assert len(given.turns) == 1


async def test_a_search_that_fails_is_nobodys_error(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)

        async def broken(*_query: Any) -> Any:
            raise StoreUnusable("a test says so")

        with monkeypatch.context() as patched:
            patched.setattr(gateway.parts.retriever, "search", broken)
            assert (await talk.type(asked_about("bicycles"))).json() == STARTED
            await prewarmed()
        assert await outcomes(gateway) == {"failed": 1}
        assert given.requests == []
        assert (await talk.say(asked_about("bicycles"))).finish_reasons == ["stop"]


# Refusals


async def test_calls_are_limited_by_key(library: MakeSettings) -> None:
    settings = library(auth__api_keys={"acme": "key-a", "beta": "key-b"}, prewarm__calls_per_minute=3)
    async with running(settings) as gateway:
        mine, theirs = [
            Talk(gateway, headers={"authorization": f"Bearer {key}"}) for key in ("key-a", "key-b")
        ]
        for _ in range(3):
            assert (await mine.type("Tell of")).status_code == 202
        refused = await mine.type("Tell of")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "busy"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await theirs.type("Tell of")).status_code == 202
        assert (await mine.say(asked_about("bicycles"))).finish_reasons == ["stop"], "turns are not limited"
        for headers in ({}, {"authorization": "Bearer key-c"}):
            response = await prewarm(gateway, question(), **headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"


async def test_turned_off_it_is_not_there(library: MakeSettings) -> None:
    async with running(library(prewarm__enabled=False)) as gateway:
        response = await prewarm(gateway, question())
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
        assert (await Talk(gateway).say("Hi")).finish_reasons == ["stop"]


async def test_without_an_engine_it_is_refused(library: MakeSettings) -> None:
    async with running(library(engine__restart_backoff_s=30)) as gateway:
        gateway.engine.die("a test says so")
        await until(lambda: gateway.parts.engine.status.phase == "dead")
        response = await prewarm(gateway, question())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert "retry-after" in response.headers
        assert await outcomes(gateway) == {}


TOOL_ANSWER = [
    user("Hi"),
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]
BAD_BODIES: dict[str, tuple[bytes, int, str | None]] = {
    "not JSON": (b'{"messages"', 400, None),
    "no object": (b"[]", 400, None),
    "nothing": (b"", 400, None),
    "half an emoji": (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', 400, None),
    "blank": (json.dumps(question(" \n\t")).encode(), 400, "messages[0].content"),
    "no messages": (b'{"messages": []}', 400, "messages"),
    "an assistant last": (
        json.dumps({"messages": [user("Hi"), assistant("Yes?")]}).encode(),
        400,
        "messages[1].role",
    ),
    "a tool last": (json.dumps({"messages": TOOL_ANSWER}).encode(), 400, "messages[2].role"),
    "too many messages": (json.dumps({"messages": [user("Hi")] * 10_000}).encode(), 400, "messages"),
    "an unknown field": (json.dumps(question(typing=True)).encode(), 400, "typing"),
    "another model": (json.dumps(question(model="another")).encode(), 404, "model"),
    "another store": (
        json.dumps(question(retrieval={"vector_store_ids": ["x"]})).encode(),
        404,
        "retrieval.vector_store_ids",
    ),
    "too large": (b" " * 1_000_001, 413, None),
}


async def test_bad_bodies_have_the_one_shape_and_reach_nothing(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given = Given(gateway)
        for name, (body, status, param) in BAD_BODIES.items():
            response = await prewarm(gateway, body)
            assert response.status_code == status, (name, response.text)
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}, name
            assert param is None or error["param"] == param, (name, error)
        too_many = (await prewarm(gateway, BAD_BODIES["too many messages"][0])).json()["error"]
        assert "512" in too_many["message"]
        async with client_of(gateway) as client:
            assert (await client.get(PREWARM)).status_code == 405
        await prewarmed()
        assert given.requests == []
        assert await outcomes(gateway) == {}
        assert not any(gateway.parts.guesses._of.values())


async def test_a_message_longer_than_the_context_prefills_nothing(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given = Given(gateway)
        response = await prewarm(gateway, question("word " * 20_000))
        assert (response.status_code, response.json()) == (202, STARTED)
        await prewarmed()
        assert given.requests == []
        assert await outcomes(gateway) == {"failed": 1}

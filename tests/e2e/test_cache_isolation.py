"""What one tenant has had computed is cold to all others: in the cache, in the ledger, in guesses and in the order."""

from __future__ import annotations

from typing import Any

import pytest

from conversations import Given, Talk, asked_about, prewarmed, sources, whole_blocks
from gateways import Gateway, MakeSettings, running
from server.settings import Settings

pytestmark = pytest.mark.anyio

KEYS = {"acme": "key-a", "beta": "key-b"}
SAME_REPLY = {"engine.simulated.reply": "Always the same."}


def settings_of_two(library: MakeSettings, **dotted: Any) -> Settings:
    return library(auth__api_keys=KEYS, **SAME_REPLY, **dotted)


def talk_of(tenant: str, gateway: Gateway, **fields: Any) -> Talk:
    return Talk(gateway, fields, headers={"authorization": f"Bearer {KEYS[tenant]}"})


async def test_a_conversation_that_another_tenant_had_is_computed_from_its_first_token(
    library: MakeSettings,
) -> None:
    async with running(settings_of_two(library)) as gateway:
        given = Given(gateway)
        block_size = gateway.engine.limits.block_size
        mine, theirs = talk_of("acme", gateway), talk_of("beta", gateway)
        for topic in ("bicycles", "cheese"):
            first = await mine.say(asked_about(topic))
            second = await theirs.say(asked_about(topic))
            assert given.turns[-1] == given.turns[-2], "the same prompt, and still nothing is shared"
            # What a tenant finds is what it has left there itself.
            assert second.timing["cached_tokens"] == first.timing["cached_tokens"]
        assert first.timing["cached_tokens"] == whole_blocks(len(given.turns[0]), block_size)

        salts = {request.salt for request in given.requests}
        assert len(salts) == 2
        assert "" not in salts


async def test_the_wait_for_the_first_word_does_not_tell_what_another_tenant_asked(
    library: MakeSettings,
) -> None:
    settings = settings_of_two(library, **{"engine.simulated.prefill_tokens_per_s": 250.0})
    async with running(settings) as gateway:
        waits = {}
        for tenant in ("acme", "acme", "acme", "beta"):
            stream = await talk_of(tenant, gateway).say(asked_about("bicycles"), max_tokens=1)
            waits.setdefault(tenant, []).append(stream.timing["ttft"])
            cached = stream.timing["cached_tokens"]
            assert (cached == 0) == (len(waits[tenant]) == 1)
        warm = min(waits["acme"][1:])
        assert waits["beta"][0] > 3 * warm
        assert waits["acme"][0] > 3 * warm


async def test_the_conversations_of_one_tenant_share_their_beginning(library: MakeSettings) -> None:
    async with running(settings_of_two(library)) as gateway:
        given = Given(gateway)
        await talk_of("acme", gateway).say(asked_about("bicycles"))
        again = await talk_of("acme", gateway).say(asked_about("bicycles"))
        n_tokens = len(given.turns[0])
        assert again.timing["cached_tokens"] == whole_blocks(n_tokens - 1, gateway.engine.limits.block_size)


async def test_what_one_tenant_types_warms_nothing_for_another(library: MakeSettings) -> None:
    async with running(settings_of_two(library)) as gateway:
        given = Given(gateway)
        mine, theirs = talk_of("acme", gateway), talk_of("beta", gateway)
        for topic, weight in (("bicycles", 1), ("cheese", 5)):
            await mine.type(asked_about(topic, weight))
            await prewarmed()
            (warmed,) = given.prewarms[-1:]
            cold = await theirs.say(asked_about(topic, weight))
            assert gateway.parts.guesses._of["acme"], "another tenant's turn took the guess"
            warm = await mine.say(asked_about(topic, weight))
            assert given.turns[-1] == given.turns[-2]
            assert warm.timing["cached_tokens"] >= whole_blocks(len(warmed), 32)
            assert cold.timing["cached_tokens"] < warm.timing["cached_tokens"]
            assert not any(gateway.parts.guesses._of.values())
            if topic == "bicycles":
                assert cold.timing["cached_tokens"] == 0
        salts = {
            request.salt for request in given.requests if list(request.prompt_token_ids) in given.prewarms
        }
        assert len(salts) == 1


async def test_typing_the_same_does_not_stop_what_another_tenant_types(library: MakeSettings) -> None:
    async with running(settings_of_two(library)) as gateway:
        for tenant in KEYS:
            await talk_of(tenant, gateway).type(asked_about("bicycles"))
        await prewarmed()
        assert {tenant: len(found) for tenant, found in gateway.parts.guesses._of.items()} == {
            "acme": 1,
            "beta": 1,
        }


async def test_the_order_of_passages_tells_nothing_of_other_tenants(library: MakeSettings) -> None:
    async with running(settings_of_two(library, context__order_margin=2.0)) as gateway:
        given = Given(gateway)
        for _ in range(3):
            await talk_of("acme", gateway, retrieval={"top_k": 1}).say(asked_about("cheese"))
        text = f"{asked_about('bicycles', 4)} {asked_about('cheese', 2)}"
        shared = await talk_of("acme", gateway).say(text)
        own = await talk_of("beta", gateway).say(text)
        assert sources(shared) == {"bicycles.md": 2, "cheese.md": 1}
        assert sources(own) == {"bicycles.md": 1, "cheese.md": 2}
        assert own.timing["cached_tokens"] == 0
        assert shared.timing["cached_tokens"] > 0
        assert len(given.turns) == 5

"""The contract of `Engine`: every implementation passes every test here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from server.context.template import ChatTemplate, Message
from server.engine.embedded import EmbeddedEngine
from server.engine.protocol import (
    Delta,
    Engine,
    EngineDead,
    GenerateRequest,
    Grammar,
    PromptTooLong,
    RequestAborted,
    RequestRefused,
    Sampling,
)
from server.engine.simulated import SimulatedEngine
from server.settings import PROJECT_ROOT, load_settings

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


# Importing vLLM warns of what it will deprecate itself.
EMBEDDED = pytest.param("embedded", marks=[pytest.mark.engine, pytest.mark.filterwarnings("default")])


@pytest.fixture(scope="module", params=["simulated", EMBEDDED])
async def engine(
    request: pytest.FixtureRequest, chat_model_path: Path, template: ChatTemplate
) -> AsyncIterator[Engine]:
    settings = load_settings(PROJECT_ROOT / "configs" / "default.toml").engine
    made: Engine
    if request.param == "simulated":
        made = SimulatedEngine(settings, template)
    else:
        made = EmbeddedEngine(settings, str(chat_model_path))
    await made.start()
    yield made
    await made.close()


@pytest.fixture(scope="module")
def prompt(template: ChatTemplate) -> list[int]:
    return template.render(
        [
            Message("system", "You are a helpful assistant who answers in plain, short English sentences."),
            Message("user", "Name the capital of France. " * 12),
        ]
    )


_numbers = iter(range(10**9))


def request_for(prompt: list[int], salt: str = "", **sampling: object) -> GenerateRequest:
    options = {"max_tokens": 12} | sampling
    return GenerateRequest(f"r{next(_numbers)}", prompt, Sampling(**options), salt)


async def collect(engine: Engine, request: GenerateRequest) -> list[Delta]:
    async with aclosing(engine.generate(request)) as stream:
        return [delta async for delta in stream]


@pytest.mark.engine
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("engine", ["embedded"], indirect=True)
async def test_an_answer_keeps_to_its_grammar_and_a_bad_one_is_refused(
    engine: Engine, prompt: list[int]
) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "inhabitants": {"type": "integer"}},
        "required": ["city", "inhabitants"],
        "additionalProperties": False,
    }
    grammar = Grammar("json_schema", json.dumps(schema))
    deltas = await collect(engine, request_for(prompt, grammar=grammar, max_tokens=80))
    answer = json.loads("".join(delta.text for delta in deltas))
    assert set(answer) == {"city", "inhabitants"}
    with pytest.raises(RequestRefused):
        await collect(engine, request_for(prompt, grammar=Grammar("json_schema", '{"type": "banana"}')))


async def settle(engine: Engine) -> None:
    """Until the scheduler says that nothing runs: an abort takes effect after the step that is running."""
    async with asyncio.timeout(10):
        while engine.load.running_requests or engine.load.waiting_requests:
            await asyncio.sleep(0.01)


async def test_only_the_last_delta_has_a_finish_reason(engine: Engine, prompt: list[int]) -> None:
    deltas = await collect(engine, request_for(prompt))
    assert [delta.finish_reason is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]


async def test_max_tokens_bounds_the_answer_and_says_length(engine: Engine, prompt: list[int]) -> None:
    deltas = await collect(engine, request_for(prompt, max_tokens=5, ignore_eos=True))
    assert sum(len(delta.token_ids) for delta in deltas) == 5
    assert deltas[-1].finish_reason == "length"


async def test_the_text_is_what_the_tokens_say(
    engine: Engine, prompt: list[int], template: ChatTemplate
) -> None:
    deltas = await collect(engine, request_for(prompt, ignore_eos=True))
    token_ids = [token for delta in deltas for token in delta.token_ids]
    assert "".join(delta.text for delta in deltas) == template.decode(token_ids)


async def test_prefill_comes_with_the_first_delta_and_its_times_are_in_order(
    engine: Engine, prompt: list[int]
) -> None:
    loop_clock = asyncio.get_running_loop().time
    before = loop_clock()
    deltas = await collect(engine, request_for(prompt))
    prefill = deltas[0].prefill
    assert prefill is not None
    assert all(delta.prefill is None for delta in deltas[1:])
    assert before <= prefill.scheduled_at <= prefill.first_token_at <= loop_clock()


async def test_a_prompt_seen_before_comes_from_the_cache_in_whole_blocks(
    engine: Engine, prompt: list[int]
) -> None:
    await collect(engine, request_for(prompt, salt="again"))
    second = await collect(engine, request_for(prompt, salt="again"))
    block_size = engine.limits.block_size
    assert second[0].prefill is not None
    assert second[0].prefill.cached_tokens == (len(prompt) - 1) // block_size * block_size


async def test_another_salt_shares_nothing(engine: Engine, prompt: list[int]) -> None:
    await collect(engine, request_for(prompt, salt="mine"))
    other = await collect(engine, request_for(prompt, salt="theirs"))
    assert other[0].prefill is not None
    assert other[0].prefill.cached_tokens == 0


async def test_greedy_answers_are_the_same_twice(engine: Engine, prompt: list[int]) -> None:
    first, second = [await collect(engine, request_for(prompt, salt="greedy")) for _ in range(2)]
    # The simulated engine's text names the cached tokens; the number of tokens is what both share.
    assert len(first) == len(second)


async def test_closing_the_stream_frees_the_engine(engine: Engine, prompt: list[int]) -> None:
    stream = engine.generate(request_for(prompt, max_tokens=500, ignore_eos=True))
    await anext(stream)
    await stream.aclose()
    await settle(engine)
    assert engine.load.kv_cache_usage == 0


async def test_cancelling_the_reader_frees_the_engine(engine: Engine, prompt: list[int]) -> None:
    reader = asyncio.create_task(collect(engine, request_for(prompt, max_tokens=500, ignore_eos=True)))
    await asyncio.sleep(0.2)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await settle(engine)
    assert engine.load.kv_cache_usage == 0


async def test_abort_ends_the_stream_with_an_error(engine: Engine, prompt: list[int]) -> None:
    request = request_for(prompt, max_tokens=500, ignore_eos=True)
    stream = engine.generate(request)
    await anext(stream)
    await engine.abort(request.request_id)
    with pytest.raises(RequestAborted):
        await _exhaust(stream)
    await settle(engine)


async def test_abort_of_an_unknown_request_is_ignored(engine: Engine) -> None:
    await engine.abort("nobody")


async def test_a_prompt_as_long_as_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(PromptTooLong):
        await collect(engine, request_for([5] * engine.limits.max_model_len))


async def test_concurrent_streams_do_not_mix(
    engine: Engine, prompt: list[int], template: ChatTemplate
) -> None:
    answers = await asyncio.gather(
        *(collect(engine, request_for(prompt, max_tokens=length, ignore_eos=True)) for length in range(2, 8))
    )
    assert [sum(len(delta.token_ids) for delta in answer) for answer in answers] == list(range(2, 8))
    for answer in answers:
        token_ids = [token for delta in answer for token in delta.token_ids]
        assert "".join(delta.text for delta in answer) == template.decode(token_ids)


async def test_a_stop_string_ends_the_answer_and_never_shows(engine: Engine, prompt: list[int]) -> None:
    whole = "".join(delta.text for delta in await collect(engine, request_for(prompt, salt="stop")))
    stop = whole.strip()[4:7]
    deltas = await collect(engine, request_for(prompt, salt="stop", stop=(stop,)))
    text = "".join(delta.text for delta in deltas)
    assert deltas[-1].finish_reason == "stop"
    assert stop not in text
    assert text == whole[: whole.index(stop)]


async def test_several_answers_to_one_prompt_each_end_once(
    engine: Engine, prompt: list[int], template: ChatTemplate
) -> None:
    deltas = await collect(engine, request_for(prompt, n=3, max_tokens=6, ignore_eos=True, temperature=0.5))
    assert deltas[0].prefill is not None
    assert sum(delta.prefill is not None for delta in deltas) == 1
    for index in range(3):
        mine = [delta for delta in deltas if delta.index == index]
        token_ids = [token for delta in mine for token in delta.token_ids]
        assert len(token_ids) == 6
        assert "".join(delta.text for delta in mine) == template.decode(token_ids)
        assert [delta.finish_reason for delta in mine if delta.finish_reason] == ["length"]
        assert mine[-1].finish_reason == "length"
    await settle(engine)


@pytest.mark.parametrize("n_top", [0, 3])
async def test_each_token_comes_with_its_logprobs(engine: Engine, prompt: list[int], n_top: int) -> None:
    deltas = await collect(engine, request_for(prompt, logprobs=n_top, max_tokens=5, ignore_eos=True))
    told = [token for delta in deltas for token in delta.logprobs]
    assert len(told) == 5
    for token in told:
        assert token.drawn.logprob <= 0
        assert len(token.top) == n_top
        assert sorted(token.top, key=lambda entry: -entry.logprob) == list(token.top)


async def test_without_logprobs_there_are_none(engine: Engine, prompt: list[int]) -> None:
    assert all(not delta.logprobs for delta in await collect(engine, request_for(prompt, max_tokens=3)))


async def test_what_a_slow_reader_has_not_taken_is_merged_and_nothing_is_lost(
    engine: Engine, prompt: list[int], template: ChatTemplate
) -> None:
    stream = engine.generate(request_for(prompt, max_tokens=12, ignore_eos=True))
    async with aclosing(stream):
        deltas = [await anext(stream)]
        await settle(engine)
        deltas += [delta async for delta in stream]
    assert len(deltas) < 12
    token_ids = [token for delta in deltas for token in delta.token_ids]
    assert len(token_ids) == 12
    assert "".join(delta.text for delta in deltas) == template.decode(token_ids)
    assert deltas[-1].finish_reason == "length"


async def test_steps_are_told_as_they_are_finished(engine: Engine, prompt: list[int]) -> None:
    before = asyncio.get_running_loop().time()
    await collect(engine, request_for(prompt, max_tokens=3))
    assert engine.load.stepped_at > before


async def test_close_ends_open_streams(engine: Engine, prompt: list[int]) -> None:
    """The last test of the module: the engine is not started again."""
    stream = engine.generate(request_for(prompt, max_tokens=500, ignore_eos=True))
    await anext(stream)
    await engine.close()
    with pytest.raises((EngineDead, RequestAborted)):
        await _exhaust(stream)


async def _exhaust(stream: AsyncGenerator[Delta, None]) -> None:
    async for _ in stream:
        pass

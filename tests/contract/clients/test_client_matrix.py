"""Every client against a server process: all of them have to see the same truth.

A client that has no way to do a thing is left out of its test by its entry in `matrix.py`; one that is not
installed fails.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from itertools import pairwise

import httpx
import pytest
from client_process import ClientProcess, Seen
from matrix import BY_NAME, having, locked_versions
from simulated_servers import RETRY_AFTER_S, Server, job
from truth import (
    API_KEY,
    ARGUMENTS,
    DOCUMENTS,
    LONG_REPLY,
    PARSED,
    QUESTIONS,
    REMARK,
    REPLY,
    THOUGHT,
    TOOL,
    TOOL_RESULTS,
)

from gateways import ServerProcess

# The first test waits for three servers and ten clients to start.
pytestmark = pytest.mark.timeout(300)

Program = Callable[[str], ClientProcess]
EVERY = having("")
BLOCK_TOKENS = 32
PROMPT = ("prompt_tokens", "completion_tokens", "total_tokens")


def clients(*able: str) -> pytest.MarkDecorator:
    """A test of every client that can do all of this."""
    return pytest.mark.parametrize(
        "client", [name for name in EVERY if all(name in having(what) for what in able)]
    )


def faultless(seen: Seen) -> Seen:
    assert seen["error"] is None, seen["error"]
    return seen


def within(seconds: float, reached: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


def usage_of(server: Server, messages: list[dict[str, str]]) -> dict[str, int]:
    """What a plain request with this history counts."""
    response = httpx.post(
        server.url + "/v1/chat/completions",
        json={"messages": messages},
        headers={"authorization": f"Bearer {API_KEY}"},
        timeout=30,
        trust_env=False,
    )
    usage = response.raise_for_status().json()["usage"]
    return {name: usage[name] for name in PROMPT}


def first_turn() -> list[dict[str, str]]:
    return [{"role": "user", "content": QUESTIONS[0]}]


def whole_conversation() -> list[dict[str, str]]:
    first, second, third = [{"role": "user", "content": question} for question in QUESTIONS]
    reply = {"role": "assistant", "content": REPLY}
    return [first, reply, second, reply, third]


@clients()
def test_the_installed_client_is_the_locked_one(client: str, program: Program) -> None:
    """Of those that have a lock here; the tests' own interpreter has another."""
    announced = dict(part.split()[:2] for part in program(client).version.split(", "))
    locked = {name: version for name, version in locked_versions(client).items() if name in announced}
    assert {name: announced[name] for name in locked} == locked, "run `make clients`"
    assert locked or not BY_NAME[client].needs


# Answers


@clients()
def test_a_streamed_answer_arrives_to_the_byte(client: str, program: Program, answers: Server) -> None:
    seen = faultless(program(client).ask("streamed", **job(answers)))
    assert seen["text"] == REPLY
    assert seen["finish_reason"] == "stop"
    assert seen["deltas"] > 20, "it came in one piece"


@clients()
def test_usage_comes_with_the_stream_when_asked_for(client: str, program: Program, answers: Server) -> None:
    seen = faultless(program(client).ask("streamed_with_usage", **job(answers)))
    assert seen["text"] == REPLY
    assert {name: seen["usage"][name] for name in PROMPT} == usage_of(answers, first_turn())
    assert 0 <= seen["usage"]["cached_tokens"] < seen["usage"]["prompt_tokens"]


@clients()
def test_a_whole_answer_is_the_streamed_one(client: str, program: Program, answers: Server) -> None:
    seen = faultless(program(client).ask("whole", **job(answers)))
    assert (seen["text"], seen["finish_reason"]) == (REPLY, "stop")
    assert {name: seen["usage"][name] for name in PROMPT} == usage_of(answers, first_turn())


@clients("firstword")
def test_sources_and_timing_reach_those_who_keep_unknown_keys(
    client: str, program: Program, answers: Server
) -> None:
    for scenario in ("streamed", "whole"):
        ours = faultless(program(client).ask(scenario, **job(answers)))["firstword"]
        assert [citation["filename"] for citation in ours["citations"]] == ["returns.md"]
        assert ours["turn"] == 1
        assert ours["timing"]["ttft"] > 0


@clients()
def test_history_goes_back_as_the_client_has_it(client: str, program: Program, answers: Server) -> None:
    """Turn 3 of a conversation whose first answer came whole and whose second was streamed."""
    seen = faultless(program(client).ask("conversation", **job(answers, questions=QUESTIONS)))
    newest = answers.get("/v1/turns?limit=1").json()["data"][0]
    assert newest["turn"] == 3
    assert seen["text"] == REPLY
    if client in having("firstword"):
        assert (seen["firstword"]["turn"], seen["firstword"]["turn_id"]) == (3, newest["id"])
    assert {name: seen["usage"][name] for name in PROMPT} == usage_of(answers, whole_conversation())


@clients()
@pytest.mark.parametrize(("scenario", "n_turns"), [("conversation", 3), ("retold", 2)])
def test_the_history_that_goes_back_is_known(
    client: str, scenario: str, n_turns: int, program: Program, answers: Server
) -> None:
    """A turn adds its question and its reply to the ledger; a message that it did not know again would be one more.

    The client's own objects go back (`conversation`), or text that it kept, in content parts (`retold`).
    """
    questions = [f"{client}, {scenario}: {question}" for question in QUESTIONS[:n_turns]]
    entries = "firstword_ledger_entries"
    whole = 'firstword_ledger_recalls_total{known="whole"}'
    before, known = answers.metric(entries), answers.metric(whole)
    seen = faultless(program(client).ask(scenario, **job(answers, questions=questions)))
    assert seen["text"] == REPLY
    assert within(5, lambda: answers.metric(entries) >= before + 2 * n_turns)
    assert answers.metric(entries) == before + 2 * n_turns
    assert answers.metric(whole) == known + n_turns - 1
    turns = answers.get(f"/v1/turns?limit={n_turns}").json()["data"]
    assert [turn["turn"] for turn in turns] == list(range(n_turns, 0, -1))
    for later, earlier in pairwise(turns):
        assert later["cached_tokens"] >= earlier["prompt_tokens"] // BLOCK_TOKENS * BLOCK_TOKENS


@clients("choices")
def test_two_choices_are_two_whole_answers(client: str, program: Program, answers: Server) -> None:
    seen = faultless(program(client).ask("choices", **job(answers)))
    assert seen["choices"] == [REPLY, REPLY]
    assert seen["finish_reason"] == "stop"


@clients("logprobs")
def test_each_token_has_its_logprobs(client: str, program: Program, answers: Server) -> None:
    seen = faultless(program(client).ask("logprobs", **job(answers)))
    assert len(seen["logprobs"]) > 20
    assert all(token["logprob"] <= 0 and token["n_top"] == 2 for token in seen["logprobs"])
    assert seen["logprobs"][0]["token"] == REPLY[: len(seen["logprobs"][0]["token"])]


@clients()
def test_a_schema_is_accepted_and_the_answer_parsed(client: str, program: Program, answers: Server) -> None:
    seen = faultless(program(client).ask("structured", **job(answers)))
    assert seen["parsed"] == PARSED


# Documents


@clients("documents")
def test_documents_go_in_are_found_and_leave_nothing(client: str, program: Program, answers: Server) -> None:
    first, *others = DOCUMENTS
    asking = job(answers, questions=["An item can be returned within 45 days"], documents=DOCUMENTS)
    seen = faultless(program(client).ask("documents", **asking))
    assert {result["filename"] for result in seen["found"]} == {first, *others}
    best = seen["found"][0]
    assert (best["filename"], best["attributes"]) == (first, {"kind": "first", "year": 2024, "public": True})
    assert "within 45 days" in best["text"]
    assert set(seen["choices"]) == {first}, "the filter was not kept to"
    assert answers.get("/v1/files").json()["data"] == []
    assert [store["id"] for store in answers.get("/v1/vector_stores").json()["data"]] == ["default"]


# Tools and reasoning


@clients()
def test_streamed_tool_calls_keep_their_arguments(client: str, program: Program, tools: Server) -> None:
    """The tool's results then go back, and that turn is answered too."""
    asking = job(tools, tool=TOOL, tool_results=TOOL_RESULTS)
    seen = faultless(program(client).ask("tool_calls", **asking))
    assert [call["name"] for call in seen["tool_calls"]] == [TOOL["name"]] * 2
    assert [call["arguments"] for call in seen["tool_calls"]] == ARGUMENTS
    assert seen["finish_reason"] == "tool_calls"
    assert seen["text"].strip() == REMARK
    ids = [call["id"] for call in seen["tool_calls"] + seen["follow_up"]["tool_calls"]]
    assert len(set(ids)) == 4
    assert all(ids)
    assert seen["follow_up"]["finish_reason"] == "tool_calls"
    assert [call["arguments"] for call in seen["follow_up"]["tool_calls"]] == ARGUMENTS


@clients()
def test_calls_that_go_back_are_known(client: str, program: Program, tools: Server) -> None:
    """Question and calls, then two results and the next calls: five messages. Some clients ask twice with other tools,
    which is two messages more; a message that was not known again would be one.
    """
    asking = job(tools, tool=TOOL, tool_results=TOOL_RESULTS, questions=[f"{client}: {QUESTIONS[0]}"])
    entries = "firstword_ledger_entries"
    before = tools.metric(entries)
    faultless(program(client).ask("tool_calls", **asking))
    assert within(5, lambda: tools.metric(entries) >= before + 5)
    assert tools.metric(entries) - before in (5, 7)


@clients("reasoning")
def test_reasoning_is_kept_apart_from_the_answer(client: str, program: Program, tools: Server) -> None:
    seen = faultless(program(client).ask("reasoning", **job(tools)))
    assert seen["reasoning"].strip() == THOUGHT
    assert seen["text"].strip().startswith(REMARK)


# Refusals


@clients()
def test_an_unknown_parameter_is_named_in_the_error(client: str, program: Program, answers: Server) -> None:
    error = program(client).ask("unknown_parameter", **job(answers, parameter="best_guess"))["error"]
    assert (error["type"], error["status"]) == (BY_NAME[client].raises.bad_request, 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "best_guess")
    assert "best_guess" in error["message"]


@clients()
@pytest.mark.parametrize("scenario", ["streamed", "whole"])
def test_a_wrong_key_is_the_clients_own_exception(
    client: str, scenario: str, program: Program, answers: Server
) -> None:
    error = program(client).ask(scenario, **job(answers, api_key="sk-test-wrong"))["error"]
    assert (error["type"], error["status"]) == (BY_NAME[client].raises.unauthorized, 401)
    assert error["code"] == "invalid_api_key"
    assert "not known" in error["message"]


# Endings and limits


@clients()
def test_a_client_that_closes_frees_its_permit(client: str, program: Program, slow: Server) -> None:
    assert slow.metric("firstword_active_streams") == 0
    seen = faultless(program(client).ask("abandoned", **job(slow, close_after_deltas=3)))
    assert seen["deltas"] >= 3
    assert within(5, lambda: slow.metric("firstword_active_streams") == 0)


def test_a_refused_client_comes_back_when_it_was_told_to(program: Program, slow: Server) -> None:
    """All permits are taken; each client is refused once, waits as long as it was told, and is answered.

    A client's first ask can take seconds, in which another would be refused twice: each has asked before.
    """
    retrying = having("retried")
    for name in retrying:
        faultless(program(name).ask("streamed", **job(slow, max_tokens=1)))
    busy = 'firstword_error_responses_total{code="busy"}'
    before = slow.metric(busy)
    asking = job(slow, max_tokens=20)
    with ExitStack() as held:
        for _ in EVERY:
            held.enter_context(_held_turn(slow))
        running = {name: program(name).begin("streamed", **asking) for name in retrying}
        assert within(30, lambda: slow.metric(busy) - before == len(retrying))
    for name, answer in running.items():
        seen = faultless(answer.result(30))
        assert LONG_REPLY.startswith(seen["text"]), name
        assert seen["finish_reason"] == "length", name
        # `retry-after` has whole seconds, and not every client reads `retry-after-ms`.
        assert seen["took_s"] >= int(RETRY_AFTER_S), f"{name} did not wait as long as it was told"
    assert slow.metric(busy) - before == len(retrying)


def _held_turn(server: Server) -> AbstractContextManager[httpx.Response]:
    """A stream that holds a permit for as long as it is open."""
    return httpx.stream(
        "POST",
        server.url + "/v1/chat/completions",
        json={"messages": first_turn(), "stream": True},
        headers={"authorization": f"Bearer {API_KEY}"},
        timeout=30,
        trust_env=False,
    )


def test_an_error_in_mid_stream_is_no_complete_answer(program: Program, slow: Server) -> None:
    """The last test of this server: SIGTERM while every client reads.

    A turn that has its permit alone is refused with a status, and some clients then ask again.
    """
    asking = job(slow)
    running = {name: program(name).begin("streamed", **asking) for name in EVERY}
    assert within(30, lambda: slow.metric("firstword_engine_running_requests") == len(EVERY))
    slow.process.send_signal(signal.SIGTERM)
    for name, answer in running.items():
        seen = answer.result(30)
        assert seen["error"] is not None, f"{name} took it for a complete answer"
        assert seen["error"]["type"] == BY_NAME[name].raises.in_stream, name
        assert seen["error"]["code"] == "shutting_down", name
        assert "shutting down" in seen["error"]["message"], name
        assert seen["finish_reason"] is None, name
    assert slow.process.wait(30) == 0


# The real engine


@pytest.mark.engine
@pytest.mark.timeout(600)
@clients()
def test_the_real_engine_streams_to_every_client(
    client: str, program: Program, real_server: ServerProcess, base_url: str
) -> None:
    asking = {
        "base_url": base_url + "/v1",
        "api_key": "none",
        "model": httpx.get(base_url + "/v1/models", trust_env=False).json()["data"][0]["id"],
        "questions": ["How do I start the server?"],
        "max_tokens": 24,
    }
    seen = faultless(program(client).ask("streamed_with_usage", **asking))
    assert seen["text"].strip()
    assert seen["deltas"] > 1
    assert seen["finish_reason"] in ("stop", "length")
    assert 1 <= seen["usage"]["completion_tokens"] <= 24
    if client in having("firstword"):
        assert seen["firstword"]["citations"]

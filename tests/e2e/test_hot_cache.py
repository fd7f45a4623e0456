"""The ledger over the wire: a conversation's prompt only grows, whatever clients do with its history."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from conversations import (
    Given,
    Talk,
    asked_about,
    assistant,
    client_of,
    document,
    prewarmed,
    sources,
    until,
    user,
    whole_blocks,
)
from gateways import Gateway, MakeSettings, running
from retrieval.ingest.intake import DirectPreparer, Intake
from server.context.joints import Joints
from server.knowledge import ingest_paths, make_embedder
from wire import CHAT, events

pytestmark = pytest.mark.anyio


def goes_on(prompt: list[int], earlier: list[int]) -> bool:
    return prompt[: len(earlier)] == earlier


def reply_tokens(gateway: Gateway, text: str) -> list[int]:
    """The simulated engine's own tokens of a whole reply."""
    return gateway.parts.template.encode(text)


def recalled(gateway: Gateway) -> dict[str, int]:
    return dict(gateway.parts.ledger.recalled)


def delete(gateway: Gateway, filename: str) -> None:
    (found,) = [one for one in gateway.parts.store.documents() if one.filename == filename]
    assert gateway.parts.store.delete(found.document_id)


# Growing


async def test_each_prompt_begins_with_the_one_before_and_its_reply(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        block_size = gateway.engine.limits.block_size
        streams = [await talk.say(asked_about(topic)) for topic in ("bicycles", "cheese", "gliders")]
        for at in (1, 2):
            before = given.turns[at - 1] + reply_tokens(gateway, streams[at - 1].text)
            assert goes_on(given.turns[at], before)
            # The simulated engine caches prompts; a real one the reply too.
            least = whole_blocks(len(given.turns[at - 1]), block_size)
            assert streams[at].timing["cached_tokens"] >= least
            assert streams[at].timing["cached_tokens"] % block_size == 0
        assert recalled(gateway) == {"whole": 2, "part": 0, "none": 0, "first": 1}


async def test_a_passage_stands_in_the_prompt_once_and_keeps_its_number(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"retrieval": {"top_k": 1}})
        first = await talk.say(asked_about("bicycles"))
        await talk.say(asked_about("cheese", 3))
        again = await talk.say(asked_about("bicycles", 9))
        assert sources(first) == sources(again) == {"bicycles.md": 1}
        assert given.text().count("About bicycles:") == 1
        assert "Passages: [1]" in given.text()
        numbers = [line for line in given.text().splitlines() if "] About " in line]
        assert [line.split(":")[0] for line in numbers] == ["[1] About bicycles", "[2] About cheese"]


async def test_histories_that_were_edited_or_branched_share_what_they_have_in_common(
    library: MakeSettings,
) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        for topic in ("bicycles", "cheese", "gliders"):
            await talk.say(asked_about(topic))
        first, second, third = given.turns
        first_reply = reply_tokens(gateway, talk.messages[1]["content"])

        branched = talk.branch(2)
        await branched.say(asked_about("lanterns"))
        assert goes_on(given.turns[3], first + first_reply)
        assert goes_on(await _next(branched, given), given.turns[3])

        edited = talk.branch(4)
        edited.messages[3] = assistant("It was I who wrote this.")
        await edited.say(asked_about("lanterns"))
        assert goes_on(given.turns[5], second)
        assert not goes_on(given.turns[5], third[: len(second) + 10])
        assert "It was I who wrote this." in given.text(5)
        assert recalled(gateway)["part"] == 1

        reworded = talk.branch(6)
        reworded.messages[0] = user("Something that nobody has asked here")
        await reworded.say(asked_about("lanterns"))
        assert recalled(gateway)["none"] == 1
        assert "Something that nobody has asked here" in given.text(6)


async def _next(talk: Talk, given: Given) -> list[int]:
    await talk.say(asked_about("pianos"))
    return given.turns[-1]


async def test_a_regenerated_answer_has_the_same_prompt_and_either_can_be_gone_on_with(
    library: MakeSettings,
) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        await talk.say(asked_about("bicycles"))
        again = talk.branch(0)
        # Its reply differs: the simulated engine names the cached tokens.
        await again.say(asked_about("bicycles"))
        assert given.turns[0] == given.turns[1]
        assert talk.messages[1] != again.messages[1]
        for one in (talk, again):
            await one.say(asked_about("cheese"))
            said = reply_tokens(gateway, one.messages[1]["content"])
            assert goes_on(given.turns[-1], given.turns[0] + said)
        assert recalled(gateway)["whole"] == 2


async def test_either_of_two_choices_can_be_gone_on_with(library: MakeSettings) -> None:
    settings = library(**{"engine.simulated.reply": "One reply that is longer than four tokens."})
    async with running(settings) as gateway:
        given = Given(gateway)
        body = {"messages": [user(asked_about("bicycles"))], "n": 2}
        async with client_of(gateway) as client:
            choices = (await client.post(CHAT, json=body)).json()["choices"]
        for choice in choices:
            said = choice["message"]["content"]
            going_on = Talk(gateway, {}, [*body["messages"], assistant(said)])
            await going_on.say(asked_about("cheese"))
            assert goes_on(given.turns[-1], given.turns[0] + reply_tokens(gateway, said))
        assert recalled(gateway)["whole"] == 2


async def test_a_reply_that_a_stop_string_ended_is_known_as_the_client_saw_it(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"stop": ["measures"]})
        await talk.say(asked_about("bicycles"))
        assert talk.messages[1]["content"] == "This is the simulated engine: it "
        await talk.say(asked_about("cheese"))
        assert recalled(gateway)["whole"] == 1
        assert goes_on(given.turns[1], given.turns[0])
        said = gateway.parts.template.decode(given.turns[1][len(given.turns[0]) :])
        assert said.startswith("This is the simulated engine: it")
        assert "measures" not in said.split("\nuser\n")[0]


async def test_a_reply_that_was_cut_off_is_gone_on_with_token_by_token(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"max_tokens": 7})
        await talk.say(asked_about("bicycles"))
        await talk.say(asked_about("cheese"))
        said = reply_tokens(gateway, talk.messages[1]["content"])
        assert len(said) == 7
        assert goes_on(given.turns[1], given.turns[0] + said)
        assert recalled(gateway)["whole"] == 1


async def test_a_client_that_left_in_mid_answer_goes_on_with_what_it_had(library: MakeSettings) -> None:
    async with running(library(**{"engine.simulated.token_interval_ms": 20.0})) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        talk.messages.append(user(asked_about("bicycles")))
        had = ""
        async with (
            client_of(gateway) as client,
            client.stream("POST", CHAT, json={"messages": talk.messages, "stream": True}) as response,
        ):
            async for chunk in events(response):
                had += chunk["choices"][0]["delta"].get("content") or ""
                if len(had) > 10:
                    break
        await until(lambda: not gateway.parts.admission.running_turns)
        talk.messages.append(assistant(had))
        stream = await talk.say(asked_about("cheese"), max_tokens=3)
        assert stream.error is None
        assert goes_on(given.turns[1], given.turns[0] + reply_tokens(gateway, had)[:-1])
        assert stream.timing["cached_tokens"] >= whole_blocks(len(given.turns[0]), 32)


async def test_a_tools_answer_goes_on_with_the_prompt_that_called_it(library: MakeSettings) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"word":"tea"}'},
    }
    async with running(library()) as gateway:
        given = Given(gateway)
        messages: list[dict[str, Any]] = [
            user(asked_about("bicycles")),
            {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "A hot drink."},
        ]
        talk = Talk(gateway, {}, messages)
        talk.messages.append(assistant((await _answered(gateway, messages)).strip()))
        await talk.say(asked_about("cheese"))
        await talk.say(asked_about("gliders"))
        for at in (1, 2):
            assert goes_on(given.turns[at], given.turns[at - 1])
        assert "A hot drink." in given.text()
        assert '"look_up"' in given.text()
        assert given.text().count("About bicycles:") == 1
        assert recalled(gateway)["whole"] == 2


async def _answered(gateway: Gateway, messages: list[dict[str, Any]]) -> str:
    async with client_of(gateway) as client:
        body = (await client.post(CHAT, json={"messages": messages})).json()
    said: str = body["choices"][0]["message"]["content"]
    return said


async def test_with_and_without_retrieval_are_two_conversations(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        off = {"retrieval": {"enabled": False}}
        await talk.say(asked_about("bicycles"), **off)
        await talk.say(asked_about("cheese"), **off)
        assert goes_on(given.turns[1], given.turns[0])
        assert "Passages:" not in given.text()

        grounded = await talk.say(asked_about("gliders"))
        assert recalled(gateway)["none"] == 1, "what was said without documents is another scope's"
        assert "gliders.md" in sources(grounded)
        await talk.say(asked_about("lanterns"))
        assert goes_on(given.turns[3], given.turns[2])

        plain = await talk.say(asked_about("pianos"), **off)
        assert sources(plain) == {}
        assert "About" not in given.text(), "a passage of the other scope"


async def test_tenants_and_system_messages_know_their_own_conversations_only(library: MakeSettings) -> None:
    async with running(library(auth__api_keys={"acme": "key-a", "beta": "key-b"})) as gateway:
        talk = Talk(gateway, headers={"authorization": "Bearer key-a"})
        await talk.say(asked_about("bicycles"))
        other = Talk(gateway, {}, list(talk.messages), {"authorization": "Bearer key-b"})
        await other.say(asked_about("cheese"))
        assert recalled(gateway)["none"] == 1
        instructed = Talk(
            gateway, {}, [{"role": "system", "content": "Be brief."}, *talk.messages], talk.headers
        )
        await instructed.say(asked_about("cheese"))
        assert recalled(gateway)["none"] == 2
        await talk.say(asked_about("cheese"))
        assert recalled(gateway) == {"whole": 1, "part": 0, "none": 2, "first": 1}


async def test_a_slow_ledger_holds_up_the_conversation_that_it_writes_and_no_other(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(library()) as gateway:
        store, written = gateway.parts.ledger.store, asyncio.Event()
        put = store.put

        async def slow_put(*written_to: Any) -> None:
            await written.wait()
            await put(*written_to)

        monkeypatch.setattr(store, "put", slow_put)
        one, other = Talk(gateway), Talk(gateway)
        await one.say(asked_about("bicycles"))
        await other.say(asked_about("cheese"))
        going_on = asyncio.create_task(one.say(asked_about("gliders")))
        done, _ = await asyncio.wait((going_on,), timeout=0.2)
        assert not done, "it did not wait for what it said itself"
        written.set()
        await going_on
        assert recalled(gateway) == {"whole": 1, "part": 0, "none": 0, "first": 2}


# Documents that change


async def test_a_deleted_document_is_in_no_later_prompt(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"retrieval": {"top_k": 1}})
        await talk.say(asked_about("bicycles"))
        await talk.say(asked_about("cheese", 3))
        typed = talk.branch(4)
        await typed.type(asked_about("gliders", 9))
        await prewarmed()
        assert "About gliders:" in given.texts()[-1]

        delete(gateway, "bicycles.md")
        delete(gateway, "gliders.md")
        n_before = len(given.requests)
        await talk.type(asked_about("gliders", 9))
        await prewarmed()
        stream = await talk.say(asked_about("gliders", 9))
        await talk.say(asked_about("bicycles", 20))
        later = given.texts()[n_before:]
        assert later
        for text in later:
            assert "About bicycles:" not in text
            assert "About gliders:" not in text
        assert "[2] About cheese:" in later[-1], "what is still there keeps its number"
        assert sources(stream).keys().isdisjoint({"bicycles.md", "gliders.md"})


async def test_a_guess_does_not_bring_back_what_was_deleted_while_the_user_typed(
    library: MakeSettings,
) -> None:
    """Also of earlier turns, and when the ledger has forgotten the conversation meanwhile."""
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"retrieval": {"top_k": 1}})
        await talk.say(asked_about("bicycles"))
        forgetful = Talk(gateway, talk.fields, list(talk.messages))
        await forgetful.type(asked_about("gliders", 9))
        await prewarmed()
        delete(gateway, "bicycles.md")
        delete(gateway, "gliders.md")
        gateway.parts.ledger.store._values.clear()
        await forgetful.say(asked_about("gliders", 9))
        assert "About bicycles:" not in given.text()
        assert "About gliders:" not in given.text()


async def test_a_changed_document_stands_in_later_prompts_as_it_is_now(
    library: MakeSettings, knowledge: Path
) -> None:
    settings = library()
    async with running(settings) as gateway:
        given, talk = Given(gateway), Talk(gateway, {"retrieval": {"top_k": 1}})
        await talk.say(asked_about("bicycles"))
        await talk.say(asked_about("cheese", 3))
        (knowledge / "bicycles.md").write_text(document("bicycles", "what was found out since"))
        parts = gateway.parts
        await asyncio.to_thread(
            ingest_paths,
            settings,
            [knowledge],
            Intake(DirectPreparer(parts.template), make_embedder(settings), parts.store),
            on_progress=lambda _: None,
        )
        stream = await talk.say(asked_about("bicycles", 9))
        assert "as it was in the beginning" not in given.text().split("About cheese:")[0]
        assert given.text().count("About bicycles:") == 1
        assert "what was found out since" in given.text()
        assert sources(stream) == {"bicycles.md": 3}, "another text, another number"


# Restarts, figures, other layouts


async def test_a_conversation_outlives_a_restart(library: MakeSettings) -> None:
    settings = library()
    async with running(settings) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        await talk.say(asked_about("bicycles"))
        before = given.turns[0] + reply_tokens(gateway, talk.messages[1]["content"])
    async with running(settings) as gateway:
        given, talk.gateway = Given(gateway), gateway
        stream = await talk.say(asked_about("bicycles", 2))
        assert recalled(gateway)["whole"] == 1
        assert goes_on(given.turns[0], before)
        assert sources(stream)["bicycles.md"] == 1


async def test_without_a_snapshot_a_conversation_begins_anew(library: MakeSettings) -> None:
    settings = library(context__ledger_snapshot=False)
    async with running(settings) as gateway:
        talk = Talk(gateway)
        await talk.say(asked_about("bicycles"))
    assert not (settings.data_path / "ledger.snapshot").exists()
    async with running(settings) as gateway:
        given, talk.gateway = Given(gateway), gateway
        await talk.say(asked_about("cheese"))
        assert recalled(gateway)["none"] == 1
        assert asked_about("bicycles") in given.text()


async def test_the_usual_layouts_figures_are_told_everywhere(library: MakeSettings) -> None:
    async with running(library()) as gateway:
        talk = Talk(gateway)
        streams = [await talk.say(asked_about(topic)) for topic in ("bicycles", "cheese")]
        async with client_of(gateway) as client:
            turns = (await client.get("/v1/turns")).json()["data"]
            metrics = (await client.get("/metrics")).text
        told = [stream.timing["plain_computed_tokens"] for stream in streams]
        for stream, turn in zip(reversed(streams), turns, strict=True):
            for name in ("plain_prompt_tokens", "plain_computed_tokens", "prompt_tokens", "cached_tokens"):
                assert turn[name] == stream.timing[name] >= 0
        assert 0 < told[1] <= streams[1].timing["plain_prompt_tokens"]
        total = [
            line for line in metrics.splitlines() if line.startswith("firstword_plain_computed_tokens_total")
        ]
        assert float(total[0].split()[1]) == sum(told)


@pytest.mark.parametrize("layout", ["system", "user"])
async def test_the_layouts_to_compare_with_still_answer(library: MakeSettings, layout: str) -> None:
    async with running(library(context__layout=layout)) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        for topic in ("bicycles", "cheese"):
            stream = await talk.say(asked_about(topic))
            assert stream.finish_reasons == ["stop"]
            assert f"{topic}.md" in sources(stream)
        assert stream.timing["plain_computed_tokens"] is None
        in_system = "Passages:" in given.text().split("\nuser\n")[0]
        assert in_system == (layout == "system")
        assert (await talk.type("Tell of")).json() == {
            "object": "chat.prewarm",
            "status": "dropped",
            "reason": "rebuilt",
        }


async def test_a_template_that_cannot_grow_is_served_with_the_usual_layout(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Joints.__init__

    def plain(self: Joints, template: Any) -> None:
        made(self, template)
        self.kind, self.reason = "plain", "a test says so"

    monkeypatch.setattr(Joints, "__init__", plain)
    async with running(library()) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        for topic in ("bicycles", "cheese"):
            assert f"{topic}.md" in sources(await talk.say(asked_about(topic)))
        system, *_, last = given.text().split("\nuser\n")
        assert "Passages:" not in system
        assert "Passages:" in last
        assert not goes_on(given.turns[1], given.turns[0])
        assert (await talk.type("Tell of")).json()["reason"] == "rebuilt"

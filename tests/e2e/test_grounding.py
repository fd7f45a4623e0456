"""What an answer may rest on: the stores and documents that were asked for, and nothing where nothing is found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import stores
from conversations import Given, Talk, asked_about, document, prewarm, prewarmed, sources, user
from gateways import Gateway, MakeSettings, running
from retrieval.store.sqlite_store import document_id_for
from retrieval.types import Chunk, Document
from server.context.prompt import DEFAULT_LAYOUT
from server.knowledge import make_embedder
from server.telemetry.timing import PHASES
from wire import CHAT, ask, question

pytestmark = pytest.mark.anyio

ADA, BOB = {"authorization": "Bearer key-a"}, {"authorization": "Bearer key-b"}


async def filled(gateway: Gateway, key: str, files: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """A new vector store with these files: name → (text, attributes)."""
    async with stores.client_of(gateway, key) as client:
        store_id = await stores.create(client, name="papers")
        for name, (text, attributes) in files.items():
            file_id = await stores.upload(client, name, text)
            body = {"file_id": file_id, "attributes": attributes}
            assert (await client.post(f"{stores.STORES}/{store_id}/files", json=body)).status_code == 200
        counts = await stores.settled(client, store_id)
        assert counts["completed"] == len(files)
        return store_id


def of(*store_ids: str, **fields: Any) -> dict[str, Any]:
    return {"retrieval": {"vector_store_ids": list(store_ids), "top_k": 4, **fields}}


async def test_a_turn_rests_on_the_stores_and_documents_that_it_names(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTWORD_AUTH__API_KEYS", '{"ada": "key-a", "bob": "key-b"}')
    async with running(library()) as gateway:
        old, new = document("bicycles", "as ada wrote it first"), document("bicycles", "as ada wrote it last")
        ada = await filled(
            gateway, "key-a", {"old.md": (old, {"year": 1990}), "new.md": (new, {"year": 2020})}
        )
        other = await filled(gateway, "key-a", {"other.md": (document("bicycles", "as ada kept it"), {})})
        bob = await filled(gateway, "key-b", {"bob.md": (document("bicycles", "as bob wrote it"), {})})
        given, about = Given(gateway), asked_about("bicycles")

        # Whose store it is decides what is found, and nobody learns that another's is there.
        everything = await ask(gateway.url, question(about, **of(ada, other)), **ADA)
        assert set(sources(everything)) == {"old.md", "new.md", "other.md"}
        assert set(sources(await ask(gateway.url, question(about, **of(bob)), **BOB))) == {"bob.md"}
        assert "bicycles.md" in sources(await ask(gateway.url, question(about), **ADA))
        nowhere = "vs_" + "0" * 32
        async with stores.client_of(gateway, "key-a") as client:
            foreign = await client.post(CHAT, json=question(about, **of(ada, bob)))
            unknown = await client.post(CHAT, json=question(about, **of(ada, nowhere)))
            typed = await prewarm(gateway, {"messages": [user(about)], **of(bob)}, **ADA)
            for refused in (foreign, unknown, typed):
                assert refused.status_code == 404
                assert refused.json()["error"]["param"] == "retrieval.vector_store_ids"
            assert foreign.text.replace(bob, nowhere) == unknown.text
            chunk_id = everything.chunks[0]["firstword"]["citations"][0]["chunk_id"]
            assert (await client.get(f"/v1/passages/{chunk_id}")).status_code == 200
        async with stores.client_of(gateway, "key-b") as client:
            assert (await client.get(f"/v1/passages/{chunk_id}")).status_code == 404

        # Filters, in the search itself.
        lately = of(ada, other, filters={"type": "gte", "key": "year", "value": 2000})
        assert set(sources(await ask(gateway.url, question(about, **lately), **ADA))) == {"new.md"}
        apart = of(ada, other, filters={"type": "nin", "key": "year", "value": [1990]})
        assert set(sources(await ask(gateway.url, question(about, **apart), **ADA))) == {"new.md", "other.md"}

        # A history is known within its scope alone.
        talk = Talk(gateway, of(ada), headers=ADA)
        await talk.say(about)
        assert "as ada wrote it" in given.text()
        stream = await talk.say(asked_about("bicycles", 2), **of(other))
        assert set(sources(stream)) == {"other.md"}
        assert "as ada wrote it" not in given.text()
        await talk.say(asked_about("bicycles", 3), **of(ada))
        assert "as ada kept it" not in given.text()
        assert [at for at in range(len(given.turns)) if "as bob wrote it" in given.text(at)] == [1]
        no_search = await talk.say(about, **of())
        assert sources(no_search) == {}


FINDS = {"retrieval__min_score": 0.2, "retrieval__mode": "dense", "retrieval__query": "last"}
NOTHING = "Zebras? Okapis!"


async def test_the_model_is_told_when_nothing_is_found(library: MakeSettings) -> None:
    async with running(library(**FINDS)) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        assert sources(await talk.say(NOTHING)) == {}
        assert given.text().count(DEFAULT_LAYOUT.nothing_found) == 1
        assert "bicycles.md" in sources(await talk.say(asked_about("bicycles")))
        assert given.text().count(DEFAULT_LAYOUT.nothing_found) == 1, "of the earlier turn, whose prompt grew"
        await talk.say(NOTHING)
        assert given.text().count(DEFAULT_LAYOUT.nothing_found) == 1, "there are passages to answer from"
        await Talk(gateway).say(NOTHING, retrieval={"enabled": False})
        assert DEFAULT_LAYOUT.nothing_found not in given.text()


async def test_nothing_found_can_be_ignored(library: MakeSettings) -> None:
    async with running(library(**FINDS, retrieval__nothing_found="ignore")) as gateway:
        given = Given(gateway)
        assert sources(await Talk(gateway).say(NOTHING)) == {}
        assert DEFAULT_LAYOUT.nothing_found not in given.text()


async def test_a_turn_that_finds_nothing_can_be_refused_without_the_engine(library: MakeSettings) -> None:
    reply = DEFAULT_LAYOUT.nothing_found_reply
    async with running(library(**FINDS, retrieval__nothing_found="refuse")) as gateway:
        given, talk = Given(gateway), Talk(gateway)
        stream = await talk.say(NOTHING, stream_options={"include_usage": True})
        assert (stream.text, stream.finish_reasons, stream.done) == (reply, ["stop"], True)
        timing = stream.timing
        assert sum(timing[phase] for phase in PHASES) == pytest.approx(timing["ttft"], abs=0.05)
        assert given.requests == []
        usage = stream.chunks[-1]["usage"]
        assert usage["completion_tokens"] == len(gateway.parts.template.encode(reply))
        async with stores.client_of(gateway) as client:
            answer = (await client.post(CHAT, json=question(NOTHING, n=2))).json()
            assert [choice["message"]["content"] for choice in answer["choices"]] == [reply, reply]
            (first, *_) = (await client.get("/v1/turns")).json()["data"]
            assert first["outcome"] == "finished"
        assert gateway.parts.admission.running_turns == 0
        assert "bicycles.md" in sources(await talk.say(asked_about("bicycles")))
        assert reply in given.text(), "the conversation goes on from it"
        assert (await talk.say(NOTHING)).text != reply, "there are passages to answer from"
        assert (await Talk(gateway).say(NOTHING, retrieval={"enabled": False})).text != reply


PARTS = [
    f"Of the harbour tides: {what}."
    for what in ("pilots board at dawn", "cranes lift at noon", "lamps burn at dusk")
]
HARBOUR = "Tell of harbour tides, pilots, cranes and lamps"


async def write_harbour(gateway: Gateway, parts: Sequence[str]) -> None:
    """A chunk for each."""
    store, embedder = gateway.parts.store, make_embedder(gateway.parts.settings)
    count = gateway.parts.template.count_tokens
    chunks = [Chunk(at, ("Harbour",), text, count(text)) for at, text in enumerate(parts)]
    held = Document(
        document_id=document_id_for("harbour.md"),
        source="harbour.md",
        filename="harbour.md",
        title="Harbour",
        content_sha256="",
        size_bytes=1,
        n_chunks=len(parts),
        ingested_at=0.0,
    )
    await asyncio.to_thread(store.put, held, chunks, embedder.embed(parts))


async def test_neighbours_are_one_passage_until_one_of_them_changes(library: MakeSettings) -> None:
    async with running(library(retrieval__query="last")) as gateway:
        await write_harbour(gateway, PARTS)
        given, talk = Given(gateway), Talk(gateway)
        stream = await talk.say(HARBOUR, retrieval={"top_k": 3})
        assert sources(stream) == {"harbour.md": 1}
        found = [given.text().index(part.removeprefix("Of the ")) for part in PARTS]
        assert found == sorted(found), "in the document's order"
        assert "[2]" not in given.text()

        stream = await talk.say("harbour tides cranes lift at noon", retrieval={"top_k": 1})
        assert sources(stream) == {"harbour.md": 1}, "it is there already"
        assert all(given.text().count(part.removeprefix("Of the ")) == 1 for part in PARTS)

        changed = [*PARTS[:2], "Of the harbour tides: lamps are out of use."]
        await write_harbour(gateway, changed)
        stream = await talk.say("harbour tides pilots board at dawn", retrieval={"top_k": 1})
        assert "lamps burn" not in given.text()
        assert "cranes lift at noon." not in given.text(), "it was part of what is gone"
        assert given.text().count("pilots board at dawn.") == 1
        assert sources(stream) == {"harbour.md": 2}, "another text, another number"

        await asyncio.to_thread(gateway.parts.store.delete, document_id_for("harbour.md"))
        await talk.say(asked_about("cheese"), retrieval={"top_k": 1})
        assert "pilots board at dawn." not in given.text()


async def test_neighbours_that_were_prefilled_as_one_are_not_told_again(library: MakeSettings) -> None:
    async with running(library(retrieval__query="last")) as gateway:
        await write_harbour(gateway, PARTS)
        given, talk = Given(gateway), Talk(gateway, {"retrieval": {"top_k": 3}})
        assert (await talk.type(HARBOUR)).status_code == 202
        await prewarmed()
        assert len(given.prewarms) == 1
        assert sources(await talk.say(HARBOUR)) == {"harbour.md": 1}
        assert all(given.text().count(part.removeprefix("Of the ")) == 1 for part in PARTS)
        once_more = Talk(gateway, talk.fields)
        assert sources(await once_more.say(HARBOUR)) == {"harbour.md": 1}
        assert all(given.text().count(part.removeprefix("Of the ")) == 1 for part in PARTS)


async def test_neighbours_stay_apart_where_they_are_not_wanted_as_one(library: MakeSettings) -> None:
    async with running(library(retrieval__query="last", retrieval__merge_neighbours=False)) as gateway:
        await write_harbour(gateway, PARTS)
        given = Given(gateway)
        await Talk(gateway).say(HARBOUR, retrieval={"top_k": 3})
        assert given.text().count("Of the harbour tides") == 3
        assert "[3]" in given.text()


class Found(BaseModel):
    """What a client wants to read an answer as."""

    subject: str


JSON_OBJECT = {"response_format": {"type": "json_object"}}


async def test_who_parses_the_answer_finds_the_refusal_apart_and_can_go_on(library: MakeSettings) -> None:
    reply = DEFAULT_LAYOUT.nothing_found_reply
    async with running(library(**FINDS, retrieval__nothing_found="refuse")) as gateway:
        given, model, recalled = Given(gateway), gateway.parts.model_name, gateway.parts.ledger.recalled
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ) as client:
            completions, asked = client.chat.completions, user(NOTHING)
            parsed = await completions.parse(model=model, messages=[asked], response_format=Found)
            async with completions.stream(
                model=model,
                messages=[asked],
                response_format=Found,
            ) as events:
                told = [event.delta async for event in events if event.type == "refusal.delta"]
                streamed = await events.get_final_completion()
            assert "".join(told) == reply
            assert given.requests == []
            for completion in (parsed, streamed):
                (choice,) = completion.choices
                message = choice.message
                assert (message.refusal, message.content, message.parsed) == (reply, None, None)
                assert choice.finish_reason == "stop"
                await client.chat.completions.create(
                    model=model,
                    messages=[asked, message.model_dump(), user(asked_about("bicycles"))],
                )
                assert given.text().count(reply) == 1
        assert (recalled["first"], recalled["whole"]) == (2, 2), (
            "sent back as the SDK gives it, it is known again"
        )


async def test_only_a_refusal_of_json_is_told_apart(library: MakeSettings) -> None:
    reply = DEFAULT_LAYOUT.nothing_found_reply
    async with running(library(**FINDS, retrieval__nothing_found="refuse")) as gateway:
        refused = await ask(gateway.url, question(NOTHING, n=2, **JSON_OBJECT))
        deltas = [chunk["choices"][0]["delta"] for chunk in refused.chunks]
        role, said = {"role": "assistant", "refusal": ""}, {"refusal": reply}
        assert deltas == [role, role, said, {}, said, {}]
        assert (refused.text, refused.finish_reasons, refused.done) == ("", ["stop", "stop"], True)
        timing = refused.timing
        assert sum(timing[phase] for phase in PHASES) == pytest.approx(timing["ttft"], abs=0.05)
        plain = await ask(gateway.url, question(NOTHING, response_format={"type": "text"}))
        answered = await ask(gateway.url, question(asked_about("bicycles"), **JSON_OBJECT))
        for stream in (plain, answered):
            assert stream.text
            assert b'"refusal"' not in stream.raw
        async with stores.client_of(gateway) as client:
            for fields, content, refusal in (JSON_OBJECT, None, reply), ({}, reply, None):
                answer = (await client.post(CHAT, json=question(NOTHING, **fields))).json()
                message = answer["choices"][0]["message"]
                assert message == {"role": "assistant", "content": content, "refusal": refusal}
                assert answer["firstword"]["timing"]["ttft"] is not None

"""The OpenAI Python SDK's asynchronous client."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI
from openai_chunks import asked, in_parts, parse_arguments, result_of, take_chunk, take_completion, tools
from protocol import Answer, Ask, Seen, retyped, serve, version_of


def client(ask: Ask) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=ask.base_url, api_key=ask.api_key)


async def stream(ask: Ask, seen: Seen, **fields: Any) -> None:
    async with client(ask) as sdk:
        async for chunk in await sdk.chat.completions.create(stream=True, **asked(ask, **fields)):
            take_chunk(seen, chunk)


async def whole(ask: Ask, seen: Seen, **fields: Any) -> None:
    async with client(ask) as sdk:
        take_completion(seen, await sdk.chat.completions.create(**asked(ask, **fields)))


async def stream_with_usage(ask: Ask, seen: Seen) -> None:
    await stream(ask, seen, stream_options={"include_usage": True})


async def unknown_parameter(ask: Ask, seen: Seen) -> None:
    await whole(ask, seen, extra_body={ask.parameter: 1})


async def conversation(ask: Ask, seen: Seen) -> None:
    """The messages go back as dictionaries, with every field the SDK knows: `model_dump()`."""
    first, second, third = ask.questions
    messages: list[Any] = [{"role": "user", "content": first}]
    async with client(ask) as sdk:
        answer = await sdk.chat.completions.create(model=ask.model, messages=messages)
        messages.append(answer.choices[0].message.model_dump())
        messages.append({"role": "user", "content": second})
        async with sdk.chat.completions.stream(model=ask.model, messages=messages) as events:
            final = await events.get_final_completion()
        messages.append(final.choices[0].message.model_dump())
        messages.append({"role": "user", "content": third})
        take_completion(seen, await sdk.chat.completions.create(model=ask.model, messages=messages))


async def retold(ask: Ask, seen: Seen) -> None:
    """The text alone was kept, and goes back as content parts."""
    first, second = ask.questions
    messages = [in_parts("user", first)]
    async with client(ask) as sdk:
        create: Any = sdk.chat.completions.create
        said = (await create(model=ask.model, messages=messages)).choices[0].message.content
        messages += [in_parts("assistant", retyped(said)), in_parts("user", second)]
        take_completion(seen, await create(model=ask.model, messages=messages))


async def tool_calls(ask: Ask, seen: Seen) -> None:
    """Streamed first; then whole, and the whole message goes back with the tool's results."""
    await stream(ask, seen, tools=tools(ask), tool_choice="auto", parallel_tool_calls=True)
    parse_arguments(seen)
    messages: list[Any] = [{"role": "user", "content": ask.question}]
    asking: dict[str, Any] = {"model": ask.model, "messages": messages, "tools": tools(ask)}
    async with client(ask) as sdk:
        message = (await sdk.chat.completions.create(**asking)).choices[0].message
        messages.append(message)
        for call, result in zip(message.tool_calls or [], ask.tool_results, strict=True):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        follow_up = Seen()
        take_completion(follow_up, await sdk.chat.completions.create(**asking))
    seen.follow_up = {"finish_reason": follow_up.finish_reason, "tool_calls": follow_up.tool_calls}


async def choices(ask: Ask, seen: Seen) -> None:
    await whole(ask, seen, n=2)


async def logprobs(ask: Ask, seen: Seen) -> None:
    await whole(ask, seen, logprobs=True, top_logprobs=2)


async def structured(ask: Ask, seen: Seen) -> None:
    """Streamed: the helper parses what has come so far with every chunk."""
    async with (
        client(ask) as sdk,
        sdk.chat.completions.stream(**asked(ask), response_format=Answer) as events,
    ):
        completion = await events.get_final_completion()
    take_completion(seen, completion)
    parsed = completion.choices[0].message.parsed
    seen.parsed = parsed.model_dump() if parsed else None


async def abandoned(ask: Ask, seen: Seen) -> None:
    async with client(ask) as sdk:
        chunks = await sdk.chat.completions.create(stream=True, **asked(ask))
        async for chunk in chunks:
            take_chunk(seen, chunk)
            if seen.deltas == ask.close_after_deltas:
                await chunks.close()
                break


async def documents(ask: Ask, seen: Seen) -> None:
    """Uploaded, attached and polled step by step; then searched for, and all of it deleted."""
    async with client(ask) as sdk:
        store = await sdk.vector_stores.create(name=ask.scenario)
        for position, (name, text) in enumerate(ask.documents.items()):
            uploaded = await sdk.files.create(file=(name, text.encode()), purpose="user_data")
            await sdk.vector_stores.files.create_and_poll(
                uploaded.id,
                vector_store_id=store.id,
                attributes=None if position else {"kind": "first", "year": 2024, "public": True},
                poll_interval_ms=20,
            )
        async for result in sdk.vector_stores.search(store.id, query=ask.question):
            seen.found.append(result_of(result))
        only: Any = {"type": "eq", "key": "kind", "value": "first"}
        async for result in sdk.vector_stores.search(store.id, query=ask.question, filters=only):
            seen.choices.append(result.filename)
        for file in [file async for file in sdk.files.list(purpose="user_data", limit=2)]:
            await sdk.vector_stores.files.delete(file.id, vector_store_id=store.id)
            await sdk.files.delete(file.id)
        await sdk.vector_stores.delete(store.id)


if __name__ == "__main__":
    serve(
        version_of("openai") + " async",
        {
            "streamed": stream,
            "streamed_with_usage": stream_with_usage,
            "whole": whole,
            "conversation": conversation,
            "retold": retold,
            "unknown_parameter": unknown_parameter,
            "tool_calls": tool_calls,
            "choices": choices,
            "logprobs": logprobs,
            "structured": structured,
            "reasoning": whole,
            "abandoned": abandoned,
            "documents": documents,
        },
    )

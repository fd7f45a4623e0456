"""The OpenAI Python SDK's synchronous client."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from openai_chunks import asked, in_parts, parse_arguments, result_of, take_chunk, take_completion, tools
from protocol import Answer, Ask, Seen, retyped, serve, version_of


def client(ask: Ask) -> OpenAI:
    return OpenAI(base_url=ask.base_url, api_key=ask.api_key)


def stream(ask: Ask, seen: Seen, **fields: Any) -> None:
    with client(ask) as sdk:
        for chunk in sdk.chat.completions.create(stream=True, **asked(ask, **fields)):
            take_chunk(seen, chunk)


def whole(ask: Ask, seen: Seen, **fields: Any) -> None:
    with client(ask) as sdk:
        take_completion(seen, sdk.chat.completions.create(**asked(ask, **fields)))


def stream_with_usage(ask: Ask, seen: Seen) -> None:
    stream(ask, seen, stream_options={"include_usage": True})


def unknown_parameter(ask: Ask, seen: Seen) -> None:
    stream(ask, seen, extra_body={ask.parameter: 1})


def conversation(ask: Ask, seen: Seen) -> None:
    """The SDK's own message objects go back: of `create`, then of the `stream` helper."""
    first, second, third = ask.questions
    messages: list[Any] = [{"role": "user", "content": first}]
    with client(ask) as sdk:
        messages.append(sdk.chat.completions.create(model=ask.model, messages=messages).choices[0].message)
        messages.append({"role": "user", "content": second})
        with sdk.chat.completions.stream(model=ask.model, messages=messages) as events:
            messages.append(events.get_final_completion().choices[0].message)
        messages.append({"role": "user", "content": third})
        take_completion(seen, sdk.chat.completions.create(model=ask.model, messages=messages))


def retold(ask: Ask, seen: Seen) -> None:
    """The text alone was kept, and goes back as content parts."""
    first, second = ask.questions
    messages = [in_parts("user", first)]
    with client(ask) as sdk:
        create: Any = sdk.chat.completions.create
        said = create(model=ask.model, messages=messages).choices[0].message.content
        messages += [in_parts("assistant", retyped(said)), in_parts("user", second)]
        take_completion(seen, create(model=ask.model, messages=messages))


def tool_calls(ask: Ask, seen: Seen) -> None:
    """Streamed twice: chunk by chunk, and by the helper, whose message goes back with the tool's results.

    A strict tool makes the helper parse the arguments, and what it parsed goes back too.
    """
    stream(ask, seen, tools=tools(ask))
    parse_arguments(seen)
    messages: list[Any] = [{"role": "user", "content": ask.question}]
    asking: dict[str, Any] = {"model": ask.model, "messages": messages, "tools": tools(ask, strict=True)}
    follow_up = Seen()
    with client(ask) as sdk:
        with sdk.chat.completions.stream(**asking) as events:
            message = events.get_final_completion().choices[0].message
        messages.append(message)
        for call, result in zip(message.tool_calls or [], ask.tool_results, strict=True):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        for chunk in sdk.chat.completions.create(stream=True, **asking):
            take_chunk(follow_up, chunk)
    parse_arguments(follow_up)
    seen.follow_up = {"finish_reason": follow_up.finish_reason, "tool_calls": follow_up.tool_calls}


def choices(ask: Ask, seen: Seen) -> None:
    stream(ask, seen, n=2)


def logprobs(ask: Ask, seen: Seen) -> None:
    stream(ask, seen, logprobs=True, top_logprobs=2)


def structured(ask: Ask, seen: Seen) -> None:
    """The message with its parsed object goes back, and is answered."""
    asking = asked(ask)
    with client(ask) as sdk:
        completion = sdk.chat.completions.parse(**asking, response_format=Answer)
        message = completion.choices[0].message
        asking["messages"] += [message, {"role": "user", "content": ask.question}]
        sdk.chat.completions.create(**asking)
    take_completion(seen, completion)
    seen.parsed = message.parsed.model_dump() if message.parsed else None


def abandoned(ask: Ask, seen: Seen) -> None:
    with client(ask) as sdk, sdk.chat.completions.create(stream=True, **asked(ask)) as chunks:
        for chunk in chunks:
            take_chunk(seen, chunk)
            if seen.deltas == ask.close_after_deltas:
                break


def documents(ask: Ask, seen: Seen) -> None:
    """One file by itself, the others as a batch; then searched for, and all of it deleted."""
    (name, text), *others = ask.documents.items()
    with client(ask) as sdk:
        store = sdk.vector_stores.create(name=ask.scenario)
        first = sdk.vector_stores.files.upload_and_poll(
            vector_store_id=store.id,
            file=(name, text.encode()),
            attributes={"kind": "first", "year": 2024, "public": True},
            poll_interval_ms=20,
        )
        if first.last_error:
            raise RuntimeError(first.last_error.message)
        sdk.vector_stores.file_batches.upload_and_poll(
            store.id, files=[(name, text.encode()) for name, text in others], poll_interval_ms=20
        )
        for result in sdk.vector_stores.search(store.id, query=ask.question):
            seen.found.append(result_of(result))
        only: Any = {"type": "eq", "key": "kind", "value": "first"}
        for result in sdk.vector_stores.search(store.id, query=ask.question, filters=only):
            seen.choices.append(result.filename)
        for file in [*sdk.vector_stores.files.list(store.id, limit=1)]:
            sdk.files.delete(file.id)
        sdk.vector_stores.delete(store.id)


if __name__ == "__main__":
    serve(
        version_of("openai") + " sync",
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
            "reasoning": stream,
            "abandoned": abandoned,
            "documents": documents,
        },
    )

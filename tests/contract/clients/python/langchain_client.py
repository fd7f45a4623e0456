"""LangChain's `ChatOpenAI`.

It gives no key that OpenAI does not have (`firstword`, `reasoning_content`), and streams one choice only.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from protocol import Answer, Ask, Seen, retyped, serve, version_of


def llm(ask: Ask, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=ask.model,
        base_url=ask.base_url,
        api_key=ask.api_key,
        max_tokens=ask.max_tokens,
        **fields,
    )


def take(seen: Seen, message: AIMessage) -> None:
    seen.text = message.text
    seen.finish_reason = message.response_metadata.get("finish_reason")
    seen.tool_calls = [
        {"id": call["id"], "name": call["name"], "arguments": call["args"]} for call in message.tool_calls
    ]
    found = message.response_metadata.get("logprobs") or {}
    seen.logprobs = [
        {"token": token["token"], "logprob": token["logprob"], "n_top": len(token["top_logprobs"])}
        for token in found.get("content") or []
    ]
    if usage := message.usage_metadata:
        seen.usage = {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
            "cached_tokens": usage.get("input_token_details", {}).get("cache_read", 0),
        }


def gather(model: Any, messages: list[AnyMessage], seen: Seen) -> AIMessageChunk:
    """Stream an answer and add its chunks up, as LangChain has it done."""
    total: AIMessageChunk | None = None
    for chunk in model.stream(messages):
        seen.deltas += bool(chunk.text)
        seen.text += chunk.text
        total = chunk if total is None else total + chunk
    assert total is not None
    take(seen, total)
    return total


def stream(ask: Ask, seen: Seen) -> None:
    gather(llm(ask), [HumanMessage(ask.question)], seen)


def stream_with_usage(ask: Ask, seen: Seen) -> None:
    gather(llm(ask, stream_usage=True), [HumanMessage(ask.question)], seen)


def whole(ask: Ask, seen: Seen) -> None:
    take(seen, llm(ask).invoke([HumanMessage(ask.question)]))


def unknown_parameter(ask: Ask, seen: Seen) -> None:
    gather(llm(ask, extra_body={ask.parameter: 1}), [HumanMessage(ask.question)], seen)


def conversation(ask: Ask, seen: Seen) -> None:
    first, second, third = ask.questions
    model = llm(ask)
    messages: list[AnyMessage] = [HumanMessage(first)]
    messages += [model.invoke(messages), HumanMessage(second)]
    messages += [gather(model, messages, Seen()), HumanMessage(third)]
    take(seen, model.invoke(messages))


def retold(ask: Ask, seen: Seen) -> None:
    """The text alone was kept, and goes back as content blocks."""
    first, second = ask.questions
    model = llm(ask)
    messages: list[AnyMessage] = [HumanMessage(first)]
    said = retyped(model.invoke(messages).text)
    messages += [
        AIMessage([{"type": "text", "text": said}]),
        HumanMessage([{"type": "text", "text": second}]),
    ]
    take(seen, model.invoke(messages))


def tool_calls(ask: Ask, seen: Seen) -> None:
    model = llm(ask).bind_tools([{"type": "function", "function": ask.tool}])
    messages: list[AnyMessage] = [HumanMessage(ask.question)]
    message = gather(model, messages, seen)
    messages.append(message)
    for call, result in zip(message.tool_calls, ask.tool_results, strict=True):
        messages.append(ToolMessage(result, tool_call_id=call["id"]))
    follow_up = Seen()
    gather(model, messages, follow_up)
    seen.follow_up = {"finish_reason": follow_up.finish_reason, "tool_calls": follow_up.tool_calls}


def choices(ask: Ask, seen: Seen) -> None:
    result = llm(ask, n=2).generate([[HumanMessage(ask.question)]])
    seen.choices = [generation.text for generation in result.generations[0]]
    seen.finish_reason = (result.generations[0][0].generation_info or {}).get("finish_reason")


def logprobs(ask: Ask, seen: Seen) -> None:
    gather(llm(ask).bind(logprobs=True, top_logprobs=2), [HumanMessage(ask.question)], seen)


def structured(ask: Ask, seen: Seen) -> None:
    parsed = llm(ask).with_structured_output(Answer, method="json_schema").invoke(ask.question)
    assert isinstance(parsed, Answer)
    seen.parsed = parsed.model_dump()


def abandoned(ask: Ask, seen: Seen) -> None:
    chunks: Any = llm(ask).stream([HumanMessage(ask.question)])
    for chunk in chunks:
        seen.deltas += bool(chunk.text)
        if seen.deltas == ask.close_after_deltas:
            chunks.close()
            break


if __name__ == "__main__":
    serve(
        version_of("langchain-openai", "langchain-core", "openai"),
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
            "abandoned": abandoned,
        },
    )

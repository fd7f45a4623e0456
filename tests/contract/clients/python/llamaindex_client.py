"""LlamaIndex's `OpenAILike`, the class it has for servers that speak OpenAI's wire."""

from __future__ import annotations

import gc
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from openai_chunks import usage_of
from protocol import Answer, Ask, Seen, retyped, serve, version_of

STREAM_USAGE = {"stream_options": {"include_usage": True}}


def llm(ask: Ask, **fields: Any) -> OpenAILike:
    return OpenAILike(
        model=ask.model,
        api_base=ask.base_url,
        api_key=ask.api_key,
        max_tokens=ask.max_tokens,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        temperature=0,
        **fields,
    )


def take(seen: Seen, response: ChatResponse) -> None:
    """A response, or one step of a stream: each holds all of the text so far, and the SDK's object as `raw`."""
    raw: Any = response.raw
    seen.text = response.message.content or ""
    seen.deltas += bool(response.delta)
    seen.firstword |= (raw.model_extra or {}).get("firstword", {})
    if raw.usage is not None:
        seen.usage = usage_of(raw.usage)
    for choice in raw.choices:
        seen.finish_reason = choice.finish_reason or seen.finish_reason
    thoughts = [block.content for block in response.message.blocks if block.block_type == "thinking"]
    seen.reasoning = "".join(thoughts) or seen.reasoning


def gather(steps: Any, seen: Seen) -> ChatResponse:
    last = None
    for step in steps:
        take(seen, step)
        last = step
    assert isinstance(last, ChatResponse)
    return last


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def stream(ask: Ask, seen: Seen) -> None:
    gather(llm(ask).stream_chat([user(ask.question)]), seen)


def stream_with_usage(ask: Ask, seen: Seen) -> None:
    gather(llm(ask, additional_kwargs=STREAM_USAGE).stream_chat([user(ask.question)]), seen)


def whole(ask: Ask, seen: Seen) -> None:
    take(seen, llm(ask).chat([user(ask.question)]))


def unknown_parameter(ask: Ask, seen: Seen) -> None:
    fields = {"extra_body": {ask.parameter: 1}}
    gather(llm(ask, additional_kwargs=fields).stream_chat([user(ask.question)]), seen)


def conversation(ask: Ask, seen: Seen) -> None:
    first, second, third = ask.questions
    model = llm(ask)
    messages = [user(first)]
    messages += [model.chat(messages).message, user(second)]
    messages += [gather(model.stream_chat(messages), Seen()).message, user(third)]
    take(seen, model.chat(messages))


def retold(ask: Ask, seen: Seen) -> None:
    """The text alone was kept, and goes back as blocks."""
    first, second = ask.questions
    model = llm(ask)
    messages = [user(first)]
    said = retyped(model.chat(messages).message.content or "")
    messages += [ChatMessage(role="assistant", blocks=[TextBlock(text=said)]), user(second)]
    take(seen, model.chat(messages))


def tool_calls(ask: Ask, seen: Seen) -> None:
    model = llm(ask)
    tools = [_tool(ask)]
    messages = [user(ask.question)]
    response = gather(
        model.stream_chat_with_tools(tools, chat_history=messages, allow_parallel_tool_calls=True), seen
    )
    calls = model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    seen.tool_calls = _calls(calls)
    messages.append(response.message)
    for call, result in zip(calls, ask.tool_results, strict=True):
        messages.append(
            ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call.tool_id})
        )
    follow_up = Seen()
    response = gather(
        model.stream_chat_with_tools(tools, chat_history=messages, allow_parallel_tool_calls=True), follow_up
    )
    calls = model.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    seen.follow_up = {"finish_reason": follow_up.finish_reason, "tool_calls": _calls(calls)}


def _tool(ask: Ask) -> FunctionTool:
    def get_weather(city: str, note: str, days: list[float]) -> str:
        return ""

    return FunctionTool.from_defaults(get_weather, name=ask.tool["name"], description=ask.tool["description"])


def _calls(calls: Any) -> list[dict[str, Any]]:
    return [{"id": call.tool_id, "name": call.tool_name, "arguments": call.tool_kwargs} for call in calls]


def logprobs(ask: Ask, seen: Seen) -> None:
    """It keeps the most likely tokens of each place; the first of them is the one that was sent."""
    response = llm(ask, logprobs=True, top_logprobs=2).chat([user(ask.question)])
    take(seen, response)
    for tokens in response.logprobs or []:
        seen.logprobs.append({"token": tokens[0].token, "logprob": tokens[0].logprob, "n_top": len(tokens)})


def structured(ask: Ask, seen: Seen) -> None:
    parsed = llm(ask).structured_predict(Answer, PromptTemplate(ask.question))
    seen.parsed = parsed.model_dump()


def abandoned(ask: Ask, seen: Seen) -> None:
    """It holds no handle on the connection, which is closed when the SDK's stream, a reference cycle, is collected."""
    steps: Any = llm(ask).stream_chat([user(ask.question)])
    for step in steps:
        take(seen, step)
        if seen.deltas == ask.close_after_deltas:
            steps.close()
            break
    del steps, step
    gc.collect()


if __name__ == "__main__":
    serve(
        version_of("llama-index-llms-openai-like", "llama-index-core", "openai"),
        {
            "streamed": stream,
            "streamed_with_usage": stream_with_usage,
            "whole": whole,
            "conversation": conversation,
            "retold": retold,
            "unknown_parameter": unknown_parameter,
            "tool_calls": tool_calls,
            "logprobs": logprobs,
            "structured": structured,
            "reasoning": stream,
            "abandoned": abandoned,
        },
    )

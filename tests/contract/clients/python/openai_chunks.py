"""What the OpenAI Python SDK's objects hold, for the sync and the async client alike."""

from __future__ import annotations

import json
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage
from protocol import Ask, Seen


def take_chunk(seen: Seen, chunk: ChatCompletionChunk) -> None:
    """One chunk of a stream. Tool calls are put together by index."""
    seen.firstword |= (chunk.model_extra or {}).get("firstword", {})
    if chunk.usage is not None:
        seen.usage = usage_of(chunk.usage)
    for choice in chunk.choices:
        while len(seen.choices) <= choice.index:
            seen.choices.append("")
        if choice.delta.content:
            seen.choices[choice.index] += choice.delta.content
            seen.deltas += 1
        seen.text = seen.choices[0]
        seen.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        seen.finish_reason = choice.finish_reason or seen.finish_reason
        seen.logprobs += logprobs_of(choice.logprobs)
        for call in choice.delta.tool_calls or []:
            if call.index == len(seen.tool_calls):
                seen.tool_calls.append({"id": call.id, "name": "", "arguments": ""})
            assert call.function is not None
            seen.tool_calls[call.index]["name"] += call.function.name or ""
            seen.tool_calls[call.index]["arguments"] += call.function.arguments or ""


def take_completion(seen: Seen, completion: ChatCompletion) -> None:
    """A whole answer; a choice's message is where streams have deltas."""
    seen.firstword |= (completion.model_extra or {}).get("firstword", {})
    seen.choices = [choice.message.content or "" for choice in completion.choices]
    first = completion.choices[0]
    seen.text = first.message.content or ""
    seen.reasoning = getattr(first.message, "reasoning_content", None) or ""
    seen.finish_reason = first.finish_reason
    seen.logprobs = logprobs_of(first.logprobs)
    if completion.usage is not None:
        seen.usage = usage_of(completion.usage)
    seen.tool_calls = [
        {"id": call.id, "name": call.function.name, "arguments": json.loads(call.function.arguments)}
        for call in first.message.tool_calls or []
        if call.type == "function"
    ]


def parse_arguments(seen: Seen) -> None:
    for call in seen.tool_calls:
        call["arguments"] = json.loads(call["arguments"])


def usage_of(usage: CompletionUsage) -> dict[str, int]:
    details = usage.prompt_tokens_details
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": (details.cached_tokens or 0) if details else 0,
    }


def logprobs_of(logprobs: Any) -> list[dict[str, Any]]:
    """Of a `ChoiceLogprobs`, whole or of one chunk."""
    if logprobs is None:
        return []
    return [
        {"token": token.token, "logprob": token.logprob, "n_top": len(token.top_logprobs)}
        for token in logprobs.content or []
    ]


def asked(ask: Ask, **fields: Any) -> dict[str, Any]:
    """The arguments of `create` for an ask with one question."""
    arguments = {"model": ask.model, "messages": [{"role": "user", "content": ask.question}], **fields}
    if ask.max_tokens is not None:
        arguments["max_tokens"] = ask.max_tokens
    return arguments


def in_parts(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def tools(ask: Ask, **fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": ask.tool | fields}]


def result_of(result: Any) -> dict[str, Any]:
    """What a search of a vector store found, as `Seen.found` has it."""
    return {
        "filename": result.filename,
        "text": "".join(part.text for part in result.content),
        "attributes": result.attributes,
    }

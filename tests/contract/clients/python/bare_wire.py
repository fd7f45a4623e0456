"""The scenarios of clients without a library: JSON out, server-sent events in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from protocol import Answer, Ask, Scenario, Seen, retyped


@dataclass(slots=True)
class Reply:
    """A response: its events where it streams, its JSON body otherwise."""

    status: int
    events: Iterable[dict[str, Any]] = ()
    body: dict[str, Any] = field(default_factory=dict)


class HttpError(Exception):
    """An error response, or the error event of a stream."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.status_code = status
        self.code, self.param = error["code"], error["param"]


Send = Callable[[Ask, dict[str, Any]], Reply]
"""Posts a body to `/chat/completions` of the ask's server."""


def scenarios(send: Send) -> dict[str, Scenario]:
    """Every scenario, over one way to post a body."""

    def run(ask: Ask, seen: Seen, **fields: Any) -> Seen:
        messages = fields.pop("messages", None) or [_user(ask.question)]
        body = {"model": ask.model, "messages": messages, **fields}
        if ask.max_tokens is not None:
            body["max_tokens"] = ask.max_tokens
        reply = send(ask, body)
        if reply.status != 200:
            raise HttpError(reply.status, reply.body["error"])
        if reply.body:
            _take(seen, reply.body, "message")
        for event in reply.events:
            if "error" in event:
                raise HttpError(reply.status, event["error"])
            _take(seen, event, "delta")
        for call in seen.tool_calls:
            call["arguments"] = json.loads(call["arguments"])
        return seen

    def stream(ask: Ask, seen: Seen, **fields: Any) -> Seen:
        return run(ask, seen, stream=True, **fields)

    def conversation(ask: Ask, seen: Seen) -> None:
        """The text goes back and nothing else, as a script of one's own would have it."""
        messages: list[dict[str, str]] = []
        for question in ask.questions[:-1]:
            messages.append(_user(question))
            messages.append({"role": "assistant", "content": stream(ask, Seen(), messages=messages).text})
        run(ask, seen, messages=[*messages, _user(ask.questions[-1])])

    def retold(ask: Ask, seen: Seen) -> None:
        """The text alone was kept, and goes back as content parts, a line in each."""
        first, second = ask.questions
        lines = retyped(stream(ask, Seen(), messages=[_user(first)]).text).split("\n")
        parts = [{"type": "text", "text": line} for line in lines]
        run(ask, seen, messages=[_user(first), {"role": "assistant", "content": parts}, _user(second)])

    def tool_calls(ask: Ask, seen: Seen) -> None:
        tools = [{"type": "function", "function": ask.tool}]
        stream(ask, seen, tools=tools)
        messages: list[dict[str, Any]] = [_user(ask.question), _with_calls(seen)]
        for call, result in zip(seen.tool_calls, ask.tool_results, strict=True):
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        follow_up = stream(ask, Seen(), messages=messages, tools=tools)
        seen.follow_up = {"finish_reason": follow_up.finish_reason, "tool_calls": follow_up.tool_calls}

    def structured(ask: Ask, seen: Seen) -> None:
        schema = {"name": "answer", "strict": True, "schema": Answer.model_json_schema()}
        stream(ask, seen, response_format={"type": "json_schema", "json_schema": schema})
        seen.parsed = json.loads(seen.text)

    return {
        "streamed": stream,
        "streamed_with_usage": lambda ask, seen: stream(ask, seen, stream_options={"include_usage": True}),
        "whole": run,
        "conversation": conversation,
        "retold": retold,
        "unknown_parameter": lambda ask, seen: stream(ask, seen, **{ask.parameter: 1}),
        "tool_calls": tool_calls,
        "choices": lambda ask, seen: stream(ask, seen, n=2),
        "logprobs": lambda ask, seen: stream(ask, seen, logprobs=True, top_logprobs=2),
        "structured": structured,
        "reasoning": stream,
        "abandoned": stream,
    }


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _with_calls(seen: Seen) -> dict[str, Any]:
    """The assistant's message as the API reference has it."""
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
        }
        for call in seen.tool_calls
    ]
    return {"role": "assistant", "content": seen.text or None, "tool_calls": calls}


def _take(seen: Seen, chunk: dict[str, Any], part: str) -> None:
    """A chunk of a stream (`part` is `delta`) or a whole answer (`message`)."""
    seen.firstword |= chunk.get("firstword", {})
    if usage := chunk.get("usage"):
        seen.usage = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        seen.usage["cached_tokens"] = usage["prompt_tokens_details"]["cached_tokens"]
    for choice in chunk["choices"]:
        while len(seen.choices) <= choice["index"]:
            seen.choices.append("")
        content = choice[part].get("content")
        seen.deltas += bool(content)
        seen.choices[choice["index"]] += content or ""
        seen.text = seen.choices[0]
        seen.reasoning += choice[part].get("reasoning_content") or ""
        seen.finish_reason = choice["finish_reason"] or seen.finish_reason
        for token in (choice.get("logprobs") or {}).get("content") or []:
            seen.logprobs.append(
                {"token": token["token"], "logprob": token["logprob"], "n_top": len(token["top_logprobs"])}
            )
        for position, call in enumerate(choice[part].get("tool_calls") or []):
            _take_call(seen, call, call.get("index", position))


def _take_call(seen: Seen, call: dict[str, Any], index: int) -> None:
    """The first part of a call brings its id and name; the arguments come in pieces."""
    if index == len(seen.tool_calls):
        seen.tool_calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
    seen.tool_calls[index]["arguments"] += call["function"].get("arguments") or ""

"""Requests that are right: what the mutations start from."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from fuzz.case import CHAT, PREWARM, post, request

USER: dict[str, Any] = {"role": "user", "content": "Which port does Firstword listen on?"}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": False,
    },
}
ANSWER = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object"}, "description": "d", "strict": True},
}
EVERYTHING: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL],
            "refusal": None,
            "reasoning_content": "hm",
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny", "name": "get_weather"},
        {"role": "assistant", "content": "It is sunny.", "annotations": [], "firstword": {"turn": 1}},
        USER,
    ],
    "stream": False,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "retrieval": {"vector_store_ids": ["default"], "top_k": 2, "enabled": True},
    "service_tier": "auto",
    "n": 2,
    "max_tokens": 8,
    "max_completion_tokens": 8,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "seed": 7,
    "stop": ["stop", "∎"],
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.1,
    "min_tokens": 1,
    "ignore_eos": False,
    "logit_bias": {"5": -1.5},
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": ANSWER,
    "tools": [WEATHER],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "store": False,
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "verbosity": "medium",
}
"""Every field that there is."""

_BODIES: list[dict[str, Any]] = [
    {"messages": [USER], "max_tokens": 8},
    {"messages": [USER], "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}},
    {"messages": [USER], "n": 3, "logprobs": True, "top_logprobs": 2, "max_tokens": 4, "stream": True},
    {"messages": [USER], "tools": [WEATHER], "tool_choice": "required", "max_tokens": 8},
    {"messages": [USER], "response_format": ANSWER, "max_tokens": 8},
    EVERYTHING,
]
_PATHS = [
    b"/health/live",
    b"/health/ready",
    b"/v1/models",
    b"/v1/models/SmolLM2-135M-Instruct",
    b"/v1/turns?limit=5",
    b"/v1/turns?limit=5&before=turn_x",
    b"/v1/turns/turn_x",
    b"/v1/passages/doc_1-0",
    b"/metrics",
    b"/openapi.json",
    b"/",
    b"/assets/mark.svg",
]
FIELDS = sorted(EVERYTHING)


def encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def a_body(source: Random) -> dict[str, Any]:
    return dict(source.choice(_BODIES))


def a_path(source: Random) -> bytes:
    return source.choice(_PATHS)


def a_target(source: Random) -> bytes:
    """Of a chat's body: to be answered, or to be prefilled."""
    return PREWARM if source.random() < 0.2 else CHAT


def a_request(source: Random) -> bytes:
    """Whole and right."""
    if source.random() < 0.5:
        return post(encode(a_body(source)), path=a_target(source))
    return request(a_path(source))

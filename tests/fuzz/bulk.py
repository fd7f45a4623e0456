"""Inputs that are much to read, to hold or to compute. Each must be answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from fuzz.case import Case
from fuzz.content import a_place, answered, beside_what_is_needed, marked, put
from fuzz.seeds import ANSWER, EVERYTHING, USER, WEATHER, a_body, encode

LIMIT_BYTES = 1_000_000
"""The default of `limits.max_body_bytes`."""

_REPEATED = ["a", " ", "\n", "👋", "1", "word ", "\x00", "\u0301", "<|im_start|>"]
_DEPTHS = [14, 15, 16, 17, 30, 200, *range(930, 1_010, 4), 5_000, 100_000]
_NESTS = [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]
_THINGS = [
    "{}", "[]", "1", '""', '{"a":{}}', '{"type":"text","text":"a"}', '{"role":"user","content":"x"}', "null", "1e9",
]  # fmt: skip
_PATTERNS = [
    "(a+)+$", "(x{1,1000}){1,1000}", "^(([a-z])+.)+[A-Z]([a-z])+$", "(", "[", "\\", "a{99999999}", "(?=a)",
    "\\p{L}+", "(a|a)*" * 200, "\x00",
]  # fmt: skip
_BODIES = [
    b"", b" ", b"\n", b"<xml/>", b"a=b&c=d", b"--x\r\n\r\n--x--", b"\x1f\x8b\x08\x00", b"\x00" * 100, b"null",
    b'"x"', b"0", b"[" * LIMIT_BYTES,
]  # fmt: skip


def huge_strings(source: Random) -> Case:
    size = source.choice((300, 4_000, 20_000, 70_000, 250_000, 900_000))
    piece = source.choice(_REPEATED)
    text = piece * (size // len(piece.encode()))
    body: Any = source.choice(
        (
            {text: 1},
            {"messages": [{"role": "user", "content": text}], "max_tokens": 4},
            put(EVERYTHING, a_place(source), text),
        )
    )
    return answered("huge strings", source, encode(body))


def deep(source: Random) -> Case:
    opening, closing = source.choice(_NESTS)
    depth = source.choice(_DEPTHS) // len(closing)
    closings = closing * (depth - (source.random() < 0.2))
    nest = opening * depth + source.choice(("1", '""', "{}")) + closings
    if source.random() < 0.1:
        return answered("deep", source, nest.encode())
    return answered("deep", source, marked(source).replace('"MARK"', nest).encode())


def many_things(source: Random) -> Case:
    """As many small things as the limit takes."""
    size = source.choice((2_000, 60_000, 300_000, 950_000))
    thing = source.choice(_THINGS)
    things = "[" + ",".join([thing] * (size // (len(thing) + 1))) + "]"
    pairs = "{" + ",".join(f'"{number}":1' for number in range(size // 10)) + "}"
    called = [USER, {"role": "assistant", "tool_calls": "MARK"}, USER]
    fields: Any = source.choice(
        (
            *({name: "MARK"} for name in ("messages", "stop", "tools", "logit_bias", "metadata", "unknown")),
            {"messages": [{"role": "user", "content": "MARK"}]},
            {"messages": called},
            {"tools": [put(WEATHER, ("function", "parameters"), "MARK")]},
        )
    )
    body = json.dumps({"messages": [USER], "max_tokens": 4} | fields)
    return answered("many things", source, body.replace('"MARK"', source.choice((things, pairs))).encode())


def schemas(source: Random) -> Case:
    """Enormous, endless and explosive ones, for an answer or for tools."""
    schema = _schema(source, source.choice(_PATTERNS), source.choice((10, 100, 1_000)))
    if source.random() < 0.5:
        body = beside_what_is_needed("response_format", put(ANSWER, ("json_schema", "schema"), schema))
    else:
        tool = put(WEATHER, ("function", "parameters"), schema)
        n_tools = source.choice((1, 1, 3, 64))
        tools = [put(tool, ("function", "name"), f"f{number}") for number in range(n_tools)]
        named = {"type": "function", "function": {"name": "f0"}}
        body = beside_what_is_needed("tools", tools)
        body["tool_choice"] = source.choice(("auto", "required", "none", named))
    return answered("schemas", source, encode(body | {"stream": source.random() < 0.5}))


def _schema(source: Random, pattern: str, size: int) -> Any:
    elsewhere = source.choice(("http://127.0.0.1:1/", "file:///etc/passwd", "#/nowhere", "", "#/%"))
    return source.choice(
        [
            {"type": "string", "pattern": pattern},
            {"type": "object", "patternProperties": {pattern: {}}, "additionalProperties": False},
            {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(size)}},
            {"enum": [f"v{number}" for number in range(size)]},
            {"$ref": "#"},
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            {"$ref": elsewhere},
            {"type": "array", "items": {"$ref": "#"}, "minItems": 10**9},
            {"type": "string", "minLength": 10**9, "maxLength": -1},
            {"type": "integer", "minimum": 10, "maximum": 1, "multipleOf": 0},
            {"allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]} for _ in range(size)]},
            {"not": {}, "if": {}, "then": False, "else": True},
            {"type": "nonsense", "properties": [], "required": "x", "enum": {}, "items": 5},
            {"type": ["object", "null"], "properties": {"": {}, "\x00": {}, "a\nb": {}}, "required": [""]},
            {"const": "👋" * size},
            {"description": "d" * source.choice((16_000, 17_000, 300_000))},
        ]
    )


def other_bodies(source: Random) -> Case:
    """Forms, XML, nothing at all, and just under and over the limit."""
    right = encode(a_body(source))
    padded = right + b" " * (LIMIT_BYTES + source.choice((-1, 0, 1, 100_000)) - len(right))
    return answered("other bodies", source, source.choice((padded, source.choice(_BODIES))))


def many_answers(source: Random) -> Case:
    """As much as one request may ask for."""
    longest = {"max_tokens": source.choice((50, 1_000, 4_000)), "n": source.choice((1, 8))}
    told = {"logprobs": True, "top_logprobs": 20, "max_tokens": 50, "n": 8}
    stopped = {"stop": ["x" * 256] * 16, "max_tokens": 1_000}
    body = {"messages": [USER], "ignore_eos": True, "stream": source.random() < 0.5}
    return answered("many answers", source, encode(body | source.choice((longest, told, stopped))))


KINDS: tuple[Callable[[Random], Case], ...] = (
    huge_strings,
    deep,
    many_things,
    schemas,
    other_bodies,
    many_answers,
)

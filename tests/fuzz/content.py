"""Inputs that are right as HTTP and wrong, or right in an unusual way, in what they ask. Each must be answered."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from fuzz.case import Case, cut, post
from fuzz.seeds import EVERYTHING, FIELDS, USER, a_body, a_target, encode

Path = tuple[str | int, ...]

_WRONG: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 0.5, -0.0, 1e308, "", "x", "0", "null",
    [], [None], [[]], ["x"], [0], {}, {"x": 1}, {"": None}, {"type": "text"}, {"type": None}, [{}],
    [{"type": "text"}],
]  # fmt: skip
_MORE_FIELDS = ["functions", "function_call", "audio", "prediction", "web_search_options", "x" * 500]
_NUMERIC = [
    "n",
    "max_tokens",
    "temperature",
    "top_k",
    "seed",
    "top_logprobs",
    "min_tokens",
    "metadata",
    "stop",
]
_NUMBERS = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "0e0", "-0", "-0.0", "1.0", "8.0", "01", "+1",
    ".5", "5.", "0x1", "1_0", "1e", "--1", "٣", "1" * 400, "9" * 4_300, "9" * 4_301, "9" * 10_000,
    "-" + "9" * 10_000, "0." + "3" * 10_000, "1e" + "9" * 10_000, "1" + "0" * 300 + ".0",
]  # fmt: skip
_CHARACTERS = [
    b"\\ud800", b"\\udfff", b"\\uDC00\\uD800", b"\\ud83d\\udc4b", b"\xed\xa0\x80", b"\xff", b"\xc0\x80",
    b"\xf5\x80\x80\x80", b"\\u0000", b"\\x41", b"\\", b"\x00", b"\n", b"\xe2\x80\xa8", b"\\u12",
    b"\\ud83d\\u0041", b"\xf0\x9f",
]  # fmt: skip
_KEYS = ['"messages"', '"role"', '"type"', '""', '"\\u0074ype"', '"x"', '"function"']
_NASTY = [
    *"\x00\x01\x1b\x7f\x85\u2028\u2029\ufeff\ufffd\ufffe\u200b\u202e\u0301\ue000\ue001\U000f0000\U0010ffff09٣",
    "<|im_start|>system\n", "<|im_end|>", "<|endoftext|>", "{{", "}}", "{% raw %}", "%s", "\\ud800", "👩‍👩‍👧‍👦",
    "</tool_call>", "\ue0000\ue001", "\ue0009\ue001", "\ue00012345678901234567890\ue001", "data: [DONE]\n\n",
    "\r\n", "'; DROP TABLE turns; --",
]  # fmt: skip
_ARGUMENTS = [
    "", "{", "null", "5", "NaN", "[Infinity]", '{"a": 1, "a": 2}', "9" * 4_300, "9" * 5_000, "1e999", '"\\ud800"',
    '{"\\ud83d": "\\udc4b"}', "[" * 500 + "]" * 500, "[" * 20_000 + "]" * 20_000, '{"a":' * 20_000, "\x00", "{}" * 9,
    '{"a": "\ue0007\ue001"}',
]  # fmt: skip


def answered(kind: str, source: Random, body: bytes) -> Case:
    return Case(kind, cut(source, post(body, path=a_target(source)), 2), answers=1)


def beside_what_is_needed(name: str, value: Any) -> dict[str, Any]:
    """One field, so that no other is refused first."""
    return {"messages": [USER], "max_tokens": 4} | {name: value}


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Of everything in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def put(body: Any, path: Path, value: Any) -> Any:
    """A copy with another value there."""
    changed = copy.deepcopy(body)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def a_place(source: Random) -> Path:
    return source.choice(_PLACES)


_PLACES = list(places(EVERYTHING))


def marked(source: Random, names: list[str] = FIELDS) -> str:
    """A body, as JSON, with "MARK" in a place where something else is to be."""
    if source.random() < 0.5:
        return json.dumps(beside_what_is_needed(source.choice(names), "MARK"))
    return json.dumps(put(EVERYTHING, a_place(source), "MARK"))


def wrong_types(source: Random) -> Case:
    body = EVERYTHING
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        body = put(body, source.choice(list(places(body))), copy.deepcopy(source.choice(_WRONG)))
    return answered("wrong types", source, encode(body if source.random() < 0.95 else source.choice(_WRONG)))


def wrong_fields(source: Random) -> Case:
    name = source.choice([*FIELDS, *_MORE_FIELDS])
    value = copy.deepcopy(source.choice(_WRONG))
    return answered("wrong fields", source, encode(beside_what_is_needed(name, value)))


def fields_missing(source: Random) -> Case:
    body: Any = copy.deepcopy(EVERYTHING)
    for _ in range(source.randint(1, 4)):
        *path, last = source.choice(list(places(body)))
        node = body
        for key in path:
            node = node[key]
        del node[last]
    return answered("fields missing", source, encode(body))


def strange_numbers(source: Random) -> Case:
    body = marked(source, _NUMERIC)
    return answered("strange numbers", source, body.replace('"MARK"', source.choice(_NUMBERS)).encode())


def keys_doubled(source: Random) -> Case:
    body = json.dumps(EVERYTHING if source.random() < 0.5 else a_body(source))
    at = source.choice([at for at, character in enumerate(body) if character == "{"]) + 1
    pair = f"{source.choice(_KEYS)}: 1, "
    return answered(
        "keys doubled", source, (body[:at] + pair * source.choice((1, 2, 1_000)) + body[at:]).encode()
    )


def broken_characters(source: Random) -> Case:
    coding = source.choice((None, None, None, None, "utf-16", "utf-32", "utf-8-sig"))
    if coding is not None:
        return answered("broken characters", source, encode(a_body(source)).decode().encode(coding))
    body = encode(put(EVERYTHING, a_place(source), "MARK"))
    if source.random() < 0.2:
        body = body.replace(b'"metadata"', b'"MARK"')
    mark = source.choice(_CHARACTERS) * source.choice((1, 3))
    return answered("broken characters", source, body.replace(b"MARK", mark))


def nasty_text(source: Random) -> Case:
    """Text that is right JSON and wrong for careless code, wherever text can stand."""
    text = "".join(source.choices([*_NASTY, "a", " "], k=source.randint(1, 12)))
    arguments = source.choice((text, json.dumps({"a": text}), json.dumps({text: 1}, ensure_ascii=False)))
    call = {"id": text[:200], "function": {"name": "f", "arguments": arguments}}
    called = [
        USER,
        {"role": "assistant", "content": text, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": text},
    ]
    tool = {"name": "f", "description": text, "parameters": {text: text, "description": text}}
    answer = {"type": "json_schema", "json_schema": {"name": "a", "schema": {text: text}}}
    fields: dict[str, Any] = source.choice(
        [
            {"messages": [{"role": "user", "content": text}]},
            {"messages": [{"role": "system", "content": text}, USER]},
            {"messages": called},
            {"tools": [{"type": "function", "function": tool}]},
            {"response_format": answer},
            {"stop": [text]},
            {"model": text},
            {"user": text, "metadata": {text: text}},
            {text: text},
            {"service_tier": text},
        ]
    )
    body = {"messages": [USER], "max_tokens": 4, "stream": source.random() < 0.5} | fields
    return answered("nasty text", source, encode(body))


def called_before(source: Random) -> Case:
    """What a model may have written as the arguments of a call, and a client sends back."""
    arguments = source.choice(_ARGUMENTS)
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call] * source.choice((1, 1, 100))},
        {"role": "tool", "tool_call_id": "c", "content": arguments},
    ]
    return answered("called before", source, encode({"messages": messages, "max_tokens": 4}))


def broken_json(source: Random) -> Case:
    body = bytearray(encode(EVERYTHING if source.random() < 0.3 else a_body(source)))
    match source.randrange(4):
        case 0:
            for _ in range(source.randint(1, 4)):
                body[source.randrange(len(body))] ^= 1 << source.randrange(8)
        case 1:
            del body[source.randrange(len(body)) :]
        case 2:
            at = source.randrange(len(body))
            body[at:at] = source.choice(
                (b",", b"}", b"]", b'"', b"//", b"/* */", b"\x00", b"'", b"undefined")
            )
        case _:
            body += source.choice((b"{}", b"]", b"\x00", b",", b" " * 5_000, b"\n{"))
    return answered("broken JSON", source, bytes(body))


KINDS: tuple[Callable[[Random], Case], ...] = (
    wrong_types,
    wrong_fields,
    wrong_types,
    fields_missing,
    strange_numbers,
    keys_doubled,
    broken_characters,
    nasty_text,
    nasty_text,
    called_before,
    broken_json,
)

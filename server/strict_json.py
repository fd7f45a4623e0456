"""JSON as RFC 8259 has it, without the liberties of `json.loads`: NaN, duplicate keys, lone surrogates."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from server.errors import InvalidBody


def parse_json(body: bytes) -> Any:
    """Raises `InvalidBody` that says what is wrong and where."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise InvalidBody(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the body is not UTF-8: byte {error.start} is wrong") from None
    except UnicodeEncodeError:
        raise InvalidBody("the body holds half a surrogate pair (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise InvalidBody("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBody(f"the body is not JSON: {error}") from None
    return value


def json_type(value: Any) -> str:
    """What JSON calls it, with its article."""
    names = {list: "an array", dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def json_depth(value: Any) -> int:
    """How many arrays and objects are in one another; a plain value has none."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InvalidBody(f"the key {twice[:64]!r} stands twice in one object", param=_printable(twice))
    return fields


def _printable(name: str) -> str:
    return name[:64].encode("utf-8", "replace").decode()


def _refuse_constant(name: str) -> None:
    raise InvalidBody(f"{name} is not JSON")

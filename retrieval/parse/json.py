"""JSON and JSON Lines: keys become headings, and each record of a list stays together on its line."""

from __future__ import annotations

import json

from retrieval.parse.outline import Outline
from retrieval.parse.rows import record

_HEADING_LEVELS = 6
_LONG_CHARACTERS = 400
"""A record with a longer value, or one of several lines, is a paragraph: a line for each of its fields."""


def read_json(text: str, outline: Outline, *, lines: bool) -> None:
    """Raises `ValueError`, `RecursionError`."""
    if lines:
        # One value at a time: the whole may be long.
        _add_records((_loaded(line) for line in text.split("\n") if line.strip()), outline)
    else:
        _add(_loaded(text), outline, level=1)


def _loaded(text: str) -> object:
    """Numbers as they were written."""
    value: object = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    return value


def _add(value: object, outline: Outline, level: int) -> None:
    if isinstance(value, list):
        _add_records(value, outline)
    elif isinstance(value, dict) and level <= _HEADING_LEVELS:
        parts = {key: part for key, part in value.items() if _is_part(part)}
        _add_record({key: part for key, part in value.items() if key not in parts}, outline, together=False)
        for key, part in parts.items():
            outline.heading(level, key)
            _add(part, outline, level + 1)
    else:
        _add_record(value, outline, together=True)


def _is_part(value: object) -> bool:
    """Worth a heading: an object, or a list of objects."""
    return bool(value) and (
        isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))
    )


def _add_records(values: object, outline: Outline) -> None:
    tight = False
    for value in values:  # type: ignore[attr-defined]
        tight = _add_record(value, outline, together=True, tight=tight)


def _add_record(value: object, outline: Outline, *, together: bool, tight: bool = False) -> bool:
    """Whether it came to one line, so that a next one may follow it closely."""
    fields = list(_fields("", value))
    if together and all(len(text) <= _LONG_CHARACTERS and "\n" not in text for _, text in fields):
        outline.block(record(fields), tight=tight)
        return True
    outline.block("\n".join(record([field]) for field in fields if field[1]))
    return False


def _fields(name: str, value: object) -> list[tuple[str, str]]:
    """What an object says, with the path of keys to each value."""
    if isinstance(value, dict):
        return [
            field
            for key, part in value.items()
            for field in _fields(f"{name}.{_line(key)}" if name else _line(key), part)
        ]
    if isinstance(value, list):
        if any(isinstance(part, dict | list) for part in value):
            return [field for part in value for field in _fields(name, part)]
        return [(name, ", ".join(_scalar(part) for part in value))]
    return [(name, _scalar(value))]


def _scalar(value: object) -> str:
    match value:
        case None:
            return ""
        case True | False:
            return "yes" if value else "no"
        case _:
            return str(value).strip()


def _line(key: str) -> str:
    return " ".join(key.split())

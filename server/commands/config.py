"""`firstword config show`: the settings tree as a table."""

from __future__ import annotations

from typing import Any

from annotated_types import BaseMetadata
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.settings import Settings, environment_names


def show_settings(settings: Settings) -> None:
    variables = {key: variable for variable, key in environment_names()}
    table = Table(title="Settings: a TOML file, then the environment, then the command line")
    table.add_column("key", style="bold", overflow="fold")
    table.add_column("value", overflow="fold")
    table.add_column("bounds", overflow="fold")
    table.add_column("meaning", ratio=1)
    for key, value, field in leaves(settings):
        table.add_row(key, escape(_shown(value)), bounds(field), escape(field.description or ""))
    console = Console()
    console.print(table)
    example = "engine.model"
    console.print(f"In the environment {example} is {variables[example]}, and so on.", highlight=False)


def leaves(model: BaseModel, path: str = "") -> list[tuple[str, Any, FieldInfo]]:
    """(dotted key, value, field) of every setting that is not itself a section."""
    found = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += leaves(value, f"{path}{name}.")
        else:
            found.append((path + name, value, field))
    return found


def bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    return ", ".join(
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        if isinstance(rule, BaseMetadata)
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(item)}" for name, item in value.items()) or "none"
    if isinstance(value, SecretStr):
        return "set" if value.get_secret_value() else "not set"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return repr(value) if isinstance(value, str) else str(value)

"""A chat template from this folder with its control tokens, on the starter model's tokenizer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from server.context.template import ChatTemplate

_FOLDER = Path(__file__).parent
_TOKENS: dict[str, dict[str, Any]] = json.loads((_FOLDER / "tokens.json").read_text())

FAMILIES = tuple(_TOKENS)


def family_template(family: str, starter: ChatTemplate) -> ChatTemplate:
    return text_template((_FOLDER / f"{family}.jinja").read_text(), starter, **_TOKENS[family])


def text_template(
    text: str,
    starter: ChatTemplate,
    bos: str | None = None,
    eos: str = "<|im_end|>",
    others: tuple[str, ...] = (),
) -> ChatTemplate:
    """A template of these lines; `starter` stays as it is."""
    tokenizer = copy.deepcopy(starter.tokenizer)
    tokens = {"bos_token": bos, "eos_token": eos} if bos else {"eos_token": eos}
    tokenizer.add_special_tokens(tokens | {"additional_special_tokens": list(others)})
    if bos is None:
        tokenizer.bos_token = None
    tokenizer.chat_template = text
    return ChatTemplate("starter", tokenizer)

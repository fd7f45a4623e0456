"""A passage's text as it stands in the prompt: it cannot be taken for what the assembler wrote around it.

Control tokens are the tokenizer's business (`ChatTemplate.encode`). Here it is about what is plain text in a prompt
and means something there: a passage's number, the headers, a speaker's name. Documents imitate these to pass their own
sentences off as another passage, as the question or as the operator ("delimiters" and "fake completion" in Liu et al.,
https://arxiv.org/abs/2310.12815). The words stay readable:

- a number in brackets becomes one in parentheses, except after a word, where it is an index in source code;
- a line that begins like a header or a speaker's turn is quoted with `> `, as in a mail;
- the markup of instructions that some templates write as plain text, `[INST]` or `<<SYS>>`, gets parentheses.

The same text always becomes the same text, and fencing it again changes nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache

from retrieval.parse.outline import visible
from server.sections.prompt import PromptSettings

LONGEST_HEADING_CHARACTERS = 160
"""Chunks are bounded in tokens, headings are not: a very long one would push the other passages out of the prompt."""

# Quantifiers are possessive, so that a line of 100,000 asterisks is read once, and patterns begin with a literal, which
# the regular expressions of Python look for fastest.
_NUMBER = r"[^\S\n]*+\d++[^\S\n]*+"
_NUMBERS = re.compile(rf"\[(?<![\w\])]\[){_NUMBER}\](?:\[{_NUMBER}\])*+")
_BRACKETS = str.maketrans("[]", "()")
_INSTRUCTION = re.compile(r"\[(/?(?i:INST))\]|<<(/?(?i:SYS))>>")
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

_DECORATION = r"[^\S\n]*+(?:[#*_`~=|\"'][^\S\n]*+)*+"
"""What may stand ahead of a name without hiding it, as in `**System:**`. Not `>`: what is quoted stays as it is."""

_SPEAKER = r"(?:system|user|assistant|human|ai)"
_IMITATIONS = (
    r"\[[^\S\n]*+\d",  # [2, 3]: a lone number has got parentheses by now
    r"<\|",  # <|im_start|>system, as text
    r"(?i:" + _SPEAKER + r"(?:[^\S\n]++(?:message|prompt|instructions?|note|notice|update|override))?"
    r"[^\w\s:]*+[^\S\n]*+[:：])",  # System: **User**: System message:
    r"(?i:\[[^\S\n]*+" + _SPEAKER + r"\b[^\]\n]*+\])",  # [SYSTEM MESSAGE]
)
_HASHED = r"#++[^\S\n]*+(?i:" + _SPEAKER + r"|instruction|input|response)s?[^\S\n]*+(?::|$)"
"""### Instruction, ### Response: the format of Alpaca."""


class Fence:
    """For prompts with these headers around passages and question."""

    def __init__(self, passages_header: str, question_header: str, pointer: str) -> None:
        headers = [*map(_begins_with, _lines(passages_header)), *map(_begins_with, _lines(question_header))]
        headers += [
            _begins_with(line) + r"[^\S\n]*+[\[(]" for line in _lines(pointer.partition("{numbers}")[0])
        ]
        plain = "|".join([_HASHED, *headers])
        decorated = "|".join([*_IMITATIONS, *headers])
        self._imitation = re.compile(rf"(?m)\n(?=[^\S\n]*+(?:{plain})|{_DECORATION}(?:{decorated}))")

    def text(self, text: str) -> str:
        """What stands in a line of its own after the passage's number and headings."""
        return self._imitation.sub("\n> ", _unmarked(_seen(text)))

    def heading(self, heading: str) -> str:
        """One line of bounded length."""
        line = " ".join(_unmarked(_seen(heading)).split())
        if len(line) > LONGEST_HEADING_CHARACTERS:
            return line[: LONGEST_HEADING_CHARACTERS - 1].rstrip() + "…"
        return line


def fence_of(layout: PromptSettings) -> Fence:
    return _fence(layout.passages_header, layout.question_header, layout.pointer)


_fence = lru_cache(maxsize=16)(Fence)


def _seen(text: str) -> str:
    """Parsers leave nothing invisible and one kind of line break; here it is made sure of, whoever filled the store."""
    return text if text.isascii() and _ASCII_CONTROL.search(text) is None else visible(text)


def _unmarked(text: str) -> str:
    text = _INSTRUCTION.sub(lambda found: f"({found[1] or found[2]})", text)
    return _NUMBERS.sub(lambda found: found[0].translate(_BRACKETS), text)


def _lines(header: str) -> list[str]:
    return [line.strip() for line in header.splitlines() if line.strip()]


def _begins_with(header: str) -> str:
    """A pattern for the header: as it is written if it ends in a letter or digit, else in any case."""
    words = [re.escape(word) for word in header.split()]
    if header[-1].isalnum():
        return r"[^\S\n]++".join(words) + r"\b"
    mark = re.escape(header[-1])
    words[-1] = words[-1].removesuffix(mark) + r"[^\S\n]*+" + mark
    return r"(?i:" + r"[^\S\n]++".join(words) + r")"

"""Text that breaks careless code, cut into tokens where it hurts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Tokens = Sequence[tuple[int, str]]
"""(token id, the text it completes), in order."""

_EMOJI = ["👋", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇨🇭", "👍🏽", "🧑🏿‍🚀", "❤️", "1️⃣", "😀"]
_SEPARATORS = "\r\n\t\x00\x0b\x0c\x1b\x1c\x1f\x7f\x85\u2028\u2029\ufeff\ufffd\ufffe\uffff\u00a0\u200b"
_WIRE = [
    '"',
    "\\",
    '\\"',
    "\\u0041",
    "\\ud83d",
    "\n\n",
    "data: [DONE]\n\n",
    '\n\ndata: {"error": {}}\n\n',
    "\n: keep-alive\n\n",
    "\r\n0\r\n\r\n",
    "event: x\nid: 1\nretry: 0\n",
    "</script><!--",
    "{}[],:",
    "null",
    "%s%d{prompt}",
]
_RIGHT_TO_LEFT = "שלום עולם مرحبا بالعالم \u202e\u202c\u2067\u2069\u200f"
_WORDS = ["the", "prefix", "cache", "holds", "what", "was", "naïve", "Zürich", "façade", "Straße", "it"]


def _words(source: Random) -> str:
    return " ".join(source.choices(_WORDS, k=source.randint(1, 80)))


def _emoji(source: Random) -> str:
    return "".join(source.choices([*_EMOJI, " ", "a"], k=source.randint(1, 60)))


def _combining(source: Random) -> str:
    marks = [chr(code) for code in range(0x300, 0x370)]
    return "".join(
        source.choice("aeioué한가 ") + "".join(source.choices(marks, k=source.randint(0, 6)))
        for _ in range(source.randint(1, 40))
    )


def _separators(source: Random) -> str:
    return "".join(source.choices(_SEPARATORS + "ab", k=source.randint(1, 120)))


def _wire(source: Random) -> str:
    return "".join(source.choices([*_WIRE, "x", " "], k=source.randint(1, 60)))


def _right_to_left(source: Random) -> str:
    return "".join(source.choices(_RIGHT_TO_LEFT + "abc1", k=source.randint(1, 120)))


def _anything(source: Random) -> str:
    """Any code point but the surrogates, which are no characters."""
    codes = [
        source.choice((source.randrange(0xD800), source.randrange(0xE000, 0x110000)))
        for _ in range(source.randint(1, 120))
    ]
    return "".join(map(chr, codes))


def _long_run(source: Random) -> str:
    return source.choice(["a", " ", "\n", "é", "👋", "\\", '"', "\x00"]) * source.randint(500, 4_000)


def _hardly_any(source: Random) -> str:
    return source.choice([" ", "\n", "\r", "\x00", "a", "👋", "\u0301", "\u200b"])


_KINDS: tuple[Callable[[Random], str], ...] = (
    _words,
    _emoji,
    _combining,
    _separators,
    _wire,
    _right_to_left,
    _anything,
    _hardly_any,
)


def random_text(source: Random) -> str:
    """Of one kind, of several, or one very long run."""
    if source.random() < 0.04:
        return _long_run(source)
    kinds = source.choices(_KINDS, k=source.choice((1, 1, 1, 2, 3)))
    return "".join(kind(source) for kind in kinds)


def random_tokens(source: Random, text: str) -> Tokens:
    """The text cut anywhere; some tokens complete no text, as when a character spans several."""
    longest = source.choice((1, 3, 8, 40))
    if len(text) > 2_000:
        longest = max(longest, len(text) // 300)
    tokens: list[tuple[int, str]] = []
    start = 0
    while start < len(text) or not tokens:
        while source.random() < 0.15:
            tokens.append((source.randrange(1_000), ""))
        end = start + source.randint(1, longest)
        tokens.append((source.randrange(1_000), text[start:end]))
        start = end
    if source.random() < 0.1:
        tokens.append((source.randrange(1_000), ""))
    return tokens


def random_stops(source: Random, text: str) -> tuple[str, ...]:
    """One to four: pieces of the text, pieces with another end, and strangers."""
    stops = []
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(text)) if text else 0
        piece = text[start : start + source.randint(1, 12)]
        stops.append(source.choice((piece, piece + "∎", "∎never∎")) or "∎")
    return tuple(stops)

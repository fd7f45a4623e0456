"""Made-up conversations: every length is drawn from a distribution.

`conversations=100,turns=4,prompt=lognormal(120,0.4),output=64,shared_prefix=400,prefixes=5,think=exponential(2)`

| key | meaning | default |
| --- | --- | --- |
| `conversations` | how many | 100 |
| `turns` | turns of a conversation | 1 |
| `prompt` | tokens of a question, drawn for every turn | 100 |
| `output` | tokens of the reply to ask for, drawn for every turn | the run's own |
| `shared_prefix` | tokens of the system message | 0: none |
| `prefixes` | different system messages, which the conversations use in rotation | 1 |
| `think` | seconds between a reply and the next turn | the run's own |

`conversations` and `prefixes` are whole numbers, the others distributions (see `distribution`), rounded; lengths and
turns are at least 1. Tokens are words, see `prose` for what that is worth; the target's chat template comes on top.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from loadtest.errors import OptionError
from loadtest.workload.conversation import Conversation, Message, UserTurn
from loadtest.workload.distribution import Distribution, parse_distribution
from loadtest.workload.prose import Prose
from loadtest.workload.workload import Workload

EXAMPLE = "conversations=100,turns=4,prompt=lognormal(120,0.4),output=64,shared_prefix=400,prefixes=5,think=exponential(2)"
MAX_TOKENS = 250_000_000
"""Of all texts together: about 1.2 GB."""
MAX_CONVERSATIONS = 1_000_000
MAX_TURNS = 2_000_000
"""Of all conversations together."""

_SPLIT = re.compile(r",(?![^(\[]*[)\]])")  # not the commas within brackets
_COUNTS = {"conversations": 100, "prefixes": 1}
_DISTRIBUTIONS: dict[str, str | None] = {
    "turns": "1",
    "prompt": "100",
    "output": None,
    "shared_prefix": None,
    "think": None,
}
_KEYS = ("conversations", "turns", "prompt", "output", "shared_prefix", "prefixes", "think")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A spec, parsed and checked."""

    conversations: int
    prefixes: int
    turns: Distribution
    prompt: Distribution
    output: Distribution | None
    shared_prefix: Distribution | None
    think: Distribution | None


def parse_recipe(spec: str) -> Recipe:
    """Raises `OptionError` that names the key."""
    given: dict[str, str] = {}
    for part in _SPLIT.split(spec) if spec.strip() else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise OptionError(f"--synthetic: {part.strip()!r} is not key=value. An example: {EXAMPLE}")
        if key not in _KEYS:
            raise OptionError(f"--synthetic: unknown key {key!r}. The keys are {', '.join(_KEYS)}.")
        if key in given:
            raise OptionError(f"--synthetic: {key} is given twice. Give it once.")
        given[key] = value
    counts = {key: _parse_count(key, given.get(key, str(default))) for key, default in _COUNTS.items()}
    drawn: dict[str, Distribution | None] = {}
    for key, default in _DISTRIBUTIONS.items():
        text = given.get(key, default)
        drawn[key] = None if text is None else parse_distribution(text, f"--synthetic: {key}")
    turns, prompt = drawn["turns"], drawn["prompt"]
    if turns is None or prompt is None:
        raise AssertionError("both have defaults")
    return Recipe(
        counts["conversations"],
        counts["prefixes"],
        turns,
        prompt,
        drawn["output"],
        drawn["shared_prefix"],
        drawn["think"],
    )


def _parse_count(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= MAX_CONVERSATIONS:
        raise OptionError(
            f"--synthetic: {key} is {value!r}. Expected a whole number from 1 to {MAX_CONVERSATIONS:,}."
        )
    return int(value)


def synthesise(spec: str, seed: int) -> Workload:
    """The same spec and seed give the same conversations. Raises `OptionError`."""
    recipe = parse_recipe(spec)
    return Workload(tuple(_Maker(recipe, seed).conversations()))


@dataclass(frozen=True, slots=True)
class _Draft:
    """A turn whose text is still to be made."""

    prompt_tokens: int
    output_tokens: int | None
    think_s: float | None


class _Maker:
    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._recipe = recipe
        self._source = random.Random(f"lengths {seed}")
        self._prose = Prose(seed)
        self._n_passages = 0
        self._n_tokens = 0
        self._n_turns = 0

    def conversations(self) -> Iterator[Conversation]:
        """All lengths are drawn before any text is made, so that too much is refused at once."""
        recipe = self._recipe
        prefix_lengths = [self._draw_prefix() for _ in range(min(recipe.prefixes, recipe.conversations))]
        drafts = [self._draw_turns() for _ in range(recipe.conversations)]
        preambles = [
            (Message("system", self._passage(n_tokens)),) if n_tokens else () for n_tokens in prefix_lengths
        ]
        for number, turns in enumerate(drafts):
            yield Conversation(
                f"synthetic-{number + 1}",
                tuple(
                    UserTurn(self._passage(turn.prompt_tokens), None, turn.output_tokens, turn.think_s)
                    for turn in turns
                ),
                preambles[number % len(preambles)],
            )

    def _draw_prefix(self) -> int:
        drawn = self._recipe.shared_prefix
        n_tokens = 0 if drawn is None else round(drawn.draw(self._source))
        self._count(n_tokens, 0)
        return n_tokens

    def _draw_turns(self) -> list[_Draft]:
        recipe, source = self._recipe, self._source
        n_turns = _whole(recipe.turns, source)
        self._count(0, n_turns)
        turns = []
        for place in range(n_turns):
            turn = _Draft(
                prompt_tokens=_whole(recipe.prompt, source),
                output_tokens=None if recipe.output is None else _whole(recipe.output, source),
                think_s=None if recipe.think is None or place == 0 else recipe.think.draw(source),
            )
            self._count(turn.prompt_tokens, 0)
            turns.append(turn)
        return turns

    def _count(self, n_tokens: int, n_turns: int) -> None:
        self._n_tokens += n_tokens
        self._n_turns += n_turns
        if self._n_tokens > MAX_TOKENS or self._n_turns > MAX_TURNS:
            raise OptionError(
                f"--synthetic: more than {MAX_TOKENS:,} tokens or {MAX_TURNS:,} turns, too much to hold in memory. "
                "Ask for fewer conversations or turns, or bound a length: prompt=lognormal(120,0.4)[1..4000]."
            )

    def _passage(self, n_tokens: int) -> str:
        self._n_passages += 1
        return self._prose.passage(self._n_passages, n_tokens)


def _whole(distribution: Distribution, source: random.Random) -> int:
    return max(1, round(distribution.draw(source)))

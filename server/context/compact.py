"""When and what a prompt sheds. Shedding recomputes all that follows, so it is done seldom, and much at a time.

Prices are counted in tokens that are computed without context; every thousand tokens of context add
`attention_cost` to the price of a token. Compacting is paid once and saves on every later turn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec

from server.context.entry import Entry, n_tokens
from server.context.template import Role

_LATELY_TURNS = 2
"""What a search returned in the last so many turns is in use."""
_LATER_TURNS = 1
"""So many turns are expected to follow. With more, real conversations (MTRAG) cost more in the end: passages that
were shed come back."""
_TYPING_SHARE = 0.25
"""What is computed while the user types costs this share of what is computed while they wait."""


def price(computed_tokens: int, prompt_tokens: int, attention_cost: float) -> float:
    """Of a prefill of the last `computed_tokens` of a prompt."""
    mean_context_tokens = prompt_tokens - computed_tokens / 2
    return computed_tokens * (1 + attention_cost * mean_context_tokens / 1_000)


def pays_off(
    appended: tuple[int, int],
    compacted: tuple[int, int],
    tokens_a_turn: int,
    attention_cost: float,
    *,
    typing: bool,
) -> bool:
    """Whether compacting now is cheaper, over the turns that are expected, than to append as long as there is room.

    `appended` and `compacted`: tokens to compute and tokens of the prompt; `tokens_a_turn`: those that a later turn
    computes, prompt and answer.
    """
    extra = price(*compacted, attention_cost) - price(*appended, attention_cost)
    shorter_tokens = appended[1] - compacted[1]
    saved_a_turn = tokens_a_turn * attention_cost * shorter_tokens / 1_000
    return extra * (_TYPING_SHARE if typing and extra > 0 else 1) < _LATER_TURNS * saved_a_turn


def shed_passages(
    history: Sequence[Entry], roles: Sequence[Role], wanted: Collection[int], shed_tokens: float = math.inf
) -> list[Entry]:
    """The history without its oldest unused passages, until `shed_tokens` are gone or none is left.

    `wanted`: keys of those that the question to come needs.
    """
    left = list(history)
    in_use = _used_lately(left, roles)
    for position, entry in enumerate(left):
        kept = []
        for passage in entry.passages:
            unused = passage.number not in in_use and not any(key in wanted for key in passage.keys)
            if shed_tokens > 0 and unused:
                shed_tokens -= n_tokens(passage.tokens)
            else:
                kept.append(passage)
        if len(kept) < len(entry.passages):
            left[position] = msgspec.structs.replace(entry, passages=tuple(kept))
    return left


def shed_turns(history: Sequence[Entry], roles: Sequence[Role], shed_tokens: int) -> list[Entry]:
    """The history without its oldest turns, whole ones, until `shed_tokens` are gone or nothing is left."""
    left = list(history)
    while shed_tokens > 0 and (turn := _oldest_turn(left, roles)):
        for position in turn:
            shed_tokens -= entry_tokens(left[position])
            left[position] = dropped(left[position])
    return left


def entry_tokens(entry: Entry) -> int:
    return n_tokens(entry.content) + sum(n_tokens(passage.tokens) for passage in entry.passages)


def dropped(entry: Entry) -> Entry:
    """What is left of a message that is not in the prompt any more."""
    return msgspec.structs.replace(entry, content=b"", passages=(), pointed=(), dropped=True)


def _used_lately(history: Sequence[Entry], roles: Sequence[Role]) -> set[int]:
    asked = [entry for entry, role in zip(history, roles, strict=False) if role == "user"]
    return {
        number
        for entry in asked[-_LATELY_TURNS:]
        for number in (*entry.pointed, *(passage.number for passage in entry.passages))
    }


def _oldest_turn(history: Sequence[Entry], roles: Sequence[Role]) -> list[int]:
    """Positions of the first message still there and of those up to the next user's."""
    there = [position for position, entry in enumerate(history) if not entry.dropped]
    if not there:
        return []
    turn = there[:1]
    for position in there[1:]:
        if roles[position] == "user":
            break
        turn.append(position)
    return turn

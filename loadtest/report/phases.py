"""Where the time to first token went: the server's own phases, and what the network and the clients on both ends added.

Milliseconds, means over the turns whose server told its phases. The parts of a row add up to its mean TTFT.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loadtest.figures.turn_result import TurnResult

ROWS = 12
"""Turn indices that get a row of their own; the later ones share one."""
WAITED = "waited in the client"
UNTOLD = "not told by the server"
NETWORK = "network and client"


class PhasePart(msgspec.Struct, frozen=True):
    name: str
    ms: float


class PhaseRow(msgspec.Struct, frozen=True):
    label: str
    """`all turns`, `turn 1`, …"""
    n: int
    parts: tuple[PhasePart, ...]


def phase_rows(ok: Sequence[TurnResult]) -> tuple[tuple[PhaseRow, ...], int]:
    """One row for all turns, then one for each turn index where there are several; and of how many turns."""
    told = [
        turn for turn in ok if turn.server is not None and turn.server.phases_ms and turn.ttft_ms is not None
    ]
    if not told:
        return (), 0
    names = _in_order(told)
    rows = [_row("all turns", told, names)]
    indices = sorted({turn.turn for turn in told})
    if len(indices) > 1:
        own = indices if len(indices) <= ROWS else indices[: ROWS - 1]
        rows += [_row(f"turn {at}", [turn for turn in told if turn.turn == at], names) for at in own]
        later = [turn for turn in told if turn.turn > own[-1]]
        if later:
            rows.append(_row(f"turn {own[-1] + 1} on", later, names))
    return tuple(rows), len(told)


def _in_order(told: Sequence[TurnResult]) -> list[str]:
    """All names of phases, each after those that come before it in the turn that tells most."""
    fullest = max(told, key=lambda turn: len(turn.server.phases_ms) if turn.server else 0)
    names = dict.fromkeys(fullest.server.phases_ms if fullest.server else ())
    for turn in told:
        names.update(dict.fromkeys(turn.server.phases_ms if turn.server else ()))
    return list(names)


def _row(label: str, told: Sequence[TurnResult], names: Sequence[str]) -> PhaseRow:
    """A phase that a turn does not tell took it no time."""
    sums = dict.fromkeys((WAITED, *names, UNTOLD, NETWORK), 0.0)
    for turn in told:
        if turn.server is None or turn.ttft_ms is None:
            continue
        phases = turn.server.phases_ms
        sums[WAITED] += turn.held_ms + turn.late_ms
        for name, ms in phases.items():
            sums[name] += ms
        in_server = sum(phases.values()) if turn.server.ttft_ms is None else turn.server.ttft_ms
        sums[UNTOLD] += in_server - sum(phases.values())
        sums[NETWORK] += turn.ttft_ms - turn.held_ms - turn.late_ms - in_server
    # Two clocks that disagree by a hair must not draw a bar to the left.
    parts = ((name, max(0.0, total / len(told))) for name, total in sums.items())
    return PhaseRow(
        label, len(told), tuple(PhasePart(name, round(ms, 3)) for name, ms in parts if ms >= 0.0005)
    )

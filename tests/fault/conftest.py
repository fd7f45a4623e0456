"""The figures of each suite, printed at the end of a run at full size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fault.size import FULL
from fault.stage import Stage, set_up

Tell = Callable[[str, Mapping[str, Any]], None]
_TOLD = pytest.StashKey[list[tuple[str, Mapping[str, Any]]]]()


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Tell:
    """Keep a suite's figures: a title, then name and value."""

    def keep(title: str, figures: Mapping[str, Any]) -> None:
        pytestconfig.stash.setdefault(_TOLD, []).append((title, figures))

    return keep


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return set_up(monkeypatch)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    told = config.stash.get(_TOLD, [])
    if not (told and (FULL or config.get_verbosity() > 0)):
        return
    terminalreporter.section("faults, in figures")
    for title, figures in told:
        terminalreporter.write_line(title)
        width = max(len(name) for name in figures)
        for name, value in figures.items():
            terminalreporter.write_line(f"  {name:<{width}}  {value}")

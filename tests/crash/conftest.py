"""The workers of the session, and the figures of each suite, printed at the end of a run at full size."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from crash.nursery import Nursery, nursery
from crash.size import FULL

Table = Sequence[Sequence[Any]]
"""Rows; the first is the heads."""
Tell = Callable[[str, Table], None]
_TOLD = pytest.StashKey[list[tuple[str, Table]]]()


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Tell:
    """Keep a suite's figures."""

    def keep(title: str, table: Table) -> None:
        pytestconfig.stash.setdefault(_TOLD, []).append((title, table))

    return keep


@pytest.fixture(scope="session")
def workers() -> Iterator[Nursery]:
    with nursery() as started:
        yield started


@pytest.fixture(scope="session")
def faulty_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Whose calls can be made to fail."""
    compiler = shutil.which("cc")
    if compiler is None:
        if FULL:
            pytest.fail(
                "calls can only be made to fail with a C compiler: install one (`cc`) and run this again"
            )
        pytest.skip("there is no C compiler (`cc`) to build the library that makes calls fail")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    with nursery(preload=library) as started:
        yield started


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    told = config.stash.get(_TOLD, [])
    if not (told and (FULL or config.get_verbosity() > 0)):
        return
    terminalreporter.section("crashes, in figures")
    for title, (heads, *rows) in told:
        terminalreporter.write_line(f"\n{title}\n")
        for row in (heads, ["---"] * len(heads), *rows):
            terminalreporter.write_line(f"| {' | '.join(map(str, row))} |")

"""The protocol behind which every load tester stands, and what can be read from its output."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Protocol

import msgspec

from bench.process import BENCH_DIR
from bench.testers.scenario import Scenario
from bench.testers.truth import Spread
from server.settings import PROJECT_ROOT

TOKENIZER = PROJECT_ROOT / "var" / "models" / "SmolLM2-135M-Instruct"


class Waited(msgspec.Struct, frozen=True):
    """A figure that a tester gives beside its TTFT and that counts from when a request was due."""

    called: str
    """The tester's own word for it."""
    p50_ms: float
    p99_ms: float
    includes_answer: bool
    """It ends with the last token, not with the first."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What a tester says. None: it does not say."""

    ok: int
    """Requests that it counts as good."""
    failed: int
    ttft_ms: Spread | None
    itl_ms: Spread | None
    """Over every gap between tokens, whatever the tester calls it."""
    tpot_ms: Spread | None
    """Over one mean for each request, of the gaps after its first token, whatever the tester calls it."""
    requests_per_s: float | None
    tokens_per_s: float | None
    waited: Waited | None = None
    remarks: tuple[str, ...] = ()
    """Its own warnings."""


class Command(msgspec.Struct, frozen=True):
    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}


class Contestant(Protocol):
    name: str

    def version(self) -> str | None:
        """None where it is not installed."""

    def cannot(self, scenario: Scenario) -> str | None:
        """Why it cannot be asked for this, by its source; None where it can."""

    def command(self, scenario: Scenario, port: int, folder: Path) -> Command:
        """Its command line for the scenario against a target on this port; it writes into `folder`, which is empty."""

    def read(self, folder: Path) -> Claimed:
        """Raises `OSError`, `KeyError` or `ValueError` when the output is not there, or not as expected."""


def python_of(environment: str) -> Path:
    return BENCH_DIR / environment / "bin" / "python"


def installed_version(environment: str, package: str) -> str | None:
    """Of a package in one of the bench's own environments."""
    folders = [str(folder) for folder in (BENCH_DIR / environment).glob("lib/python*/site-packages")]
    found = list(metadata.distributions(name=package, path=folders))
    return found[0].version if found else None

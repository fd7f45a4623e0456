"""What a person sees while it runs. Drawn between turns, never during one: a thread that draws would be in the figures."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from types import TracebackType

from rich import progress as rich
from rich.console import Console
from rich.markup import escape

from loadtest.report.cells import milliseconds
from server.evaluation.figures import Mode, Observation


class Progress:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("opening", total=None)
        self._said = ""
        self._later_ttft_ms: dict[Mode, list[float]] = defaultdict(list)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, words: str) -> None:
        self._say(words.partition(",")[0])
        self._show(description=escape(words))

    def embedded(self, n_done: int, n_all: int) -> None:
        self._say("embedding the passages")
        self._show(description="embedding the passages", completed=n_done, total=n_all)

    def begin(self, n_turns: int) -> None:
        self._say(f"{n_turns} turns")
        self._show(description="warming up", completed=0, total=n_turns)

    def turn(self, observation: Observation) -> None:
        if observation.turn > 1:
            self._later_ttft_ms[observation.mode].append(observation.ttft_ms)
        medians = ", ".join(
            f"{mode} {milliseconds(median(found))}" for mode, found in self._later_ttft_ms.items()
        )
        self._show(description=f"TTFT p50, ms: {medians}" if medians else "replaying", advance=1)

    def failed(self, mode: Mode, turn: int, error: str, n_turns: int) -> None:
        """The conversation's turns from `turn` on, of `n_turns`, will not come."""
        self._bar.console.print(f"[red]{mode}, turn {turn}[/red]: {escape(error)}", highlight=False)
        self._show(advance=n_turns - turn + 1)

    def _say(self, words: str) -> None:
        """Where there is no terminal, and so no bar: each phase once."""
        if not self._console.is_terminal and words != self._said:
            self._said = words
            self._console.print(escape(words), highlight=False)

    def _show(self, **changes: object) -> None:
        self._bar.update(self._task, refresh=True, **changes)  # type: ignore[arg-type]

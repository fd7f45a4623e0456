"""What a person sees while a bench runs. It is drawn in a process that measures nothing."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.bench import Watcher
from loadtest.figures.distribution import itl_ms
from loadtest.figures.document import Stage
from loadtest.figures.histogram import Histogram
from loadtest.figures.turn_result import TurnResult
from loadtest.fleet import StageRun
from loadtest.report.cells import milliseconds

_BARS = "▁▂▃▄▅▆▇█"
_MOST_TURN_ROWS = 8
_HISTORY = 60
_LATELY_S = 5.0


class LiveView(Watcher):
    """Use as a context manager around the bench. Without a terminal it says one line for each stage."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._name = ""
        self._late_ms = 0.0
        self._run: StageRun | None = None
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            auto_refresh=True,
        )
        self._forget()

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def stage_began(self, name: str, run: StageRun) -> None:
        self._name, self._run = name, run
        self._forget()

    def turns_ended(self, results: Sequence[TurnResult]) -> None:
        measured = [turn for turn in results if not turn.warmup]
        self._warmup += len(results) - len(measured)
        self._outcomes.update(turn.outcome for turn in measured)
        ok = [turn for turn in measured if turn.outcome == "ok"]
        now = perf_counter()
        self._tokens.append((now, sum(turn.output_tokens for turn in ok)))
        if ttfts := [turn.ttft_ms for turn in ok if turn.ttft_ms is not None]:
            self._recent.append((now, max(ttfts)))
        self._late_ms = max([self._late_ms, *(turn.late_ms for turn in measured)])
        self._itl.add(Histogram.of_ms(gap for turn in ok for gap in itl_ms(turn)))
        for turn in ok:
            if turn.ttft_ms is not None:
                self._ttft.setdefault(turn.turn, Histogram()).add(Histogram.of_ms([turn.ttft_ms]))

    def stage_ended(self, stage: Stage) -> None:
        summary = stage.summary
        ttft = summary.ttft_ms
        said = (
            "no token came"
            if ttft is None
            else f"TTFT p50 {milliseconds(ttft.p50)} ms, p99 {milliseconds(ttft.p99)} ms"
        )
        missed = [verdict.bound for verdict in stage.verdicts if not verdict.met]
        verdict = (
            "" if not stage.verdicts else "; SLO met" if not missed else f"; SLO missed: {', '.join(missed)}"
        )
        failed = f", {summary.failed} failed" if summary.failed else ""
        self._console.print(
            Text(f"{stage.name}: {summary.turns} turns{failed}, {said}{verdict}"), highlight=False
        )
        self._run = None

    def _forget(self) -> None:
        self._warmup = 0
        self._outcomes: Counter[str] = Counter()
        self._ttft: dict[int, Histogram] = {}
        self._itl = Histogram()
        self._tokens: deque[tuple[float, int]] = deque(maxlen=600)
        self._recent: deque[tuple[float, float]] = deque(maxlen=_HISTORY)
        self._late_ms = 0.0

    def _draw(self) -> Group:
        run = self._run
        if run is None:
            return Group(Text(""))
        if run.begun_at is None:
            wanted = run.plan.warmup_conversations
            return Group(Text(f"{self._name}: warming up, {self._warmup} turns of {wanted} conversations"))
        return Group(
            self._headline(run, perf_counter() - run.begun_at),
            self._table(),
            self._spark(perf_counter() - run.begun_at),
        )

    def _headline(self, run: StageRun, elapsed_s: float) -> Table:
        ended = sum(self._outcomes.values())
        line = Table.grid(padding=(0, 2))
        line.add_column(no_wrap=True)
        line.add_column(width=30)
        line.add_column(no_wrap=True)
        done, total, unit = self._progress(run, elapsed_s, ended)
        failed = ended - self._outcomes["ok"] - self._outcomes["refused"]
        state = (
            f"{done:,.0f} of {total:,.0f} {unit} · {sum(run.under_way.values())} under way · {ended} turns"
        )
        line.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=max(total, 1e-9), completed=min(done, total)),
            Text(state),
        )
        troubles = [f"{self._outcomes['refused']} refused"] if self._outcomes["refused"] else []
        troubles += [f"{failed} failed"] if failed else []
        if self._late_ms > 1:
            troubles.append(f"client up to {milliseconds(self._late_ms)} ms late")
        if troubles:
            line.add_row("", "", Text(" · ".join(troubles), style="yellow"))
        return line

    def _progress(self, run: StageRun, elapsed_s: float, ended: int) -> tuple[float, float, str]:
        plan = run.plan
        if plan.duration_s is not None:
            return min(elapsed_s, plan.duration_s), plan.duration_s, "s"
        if plan.popularity is not None:
            return ended, max(ended, plan.n_conversations or 1), "turns"
        first = plan.warmup_conversations
        n = plan.n_conversations or len(plan.conversations) - first
        turns = [len(conversation.turns) for conversation in plan.conversations]
        return ended, sum(turns[(first + index) % len(turns)] for index in range(n)), "turns"

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2))
        for name in ("TTFT, ms", "n", "p50", "p90", "p99", "max"):
            table.add_column(name, justify="left" if name.startswith("TTFT") else "right")
        everything = Histogram()
        for turn, histogram in sorted(self._ttft.items()):
            everything.add(histogram)
            if turn <= _MOST_TURN_ROWS and len(self._ttft) > 1:
                table.add_row(f"turn {turn}", *_cells(histogram))
        table.add_row("all turns", *_cells(everything), style="bold")
        table.add_row("ITL, ms", *_cells(self._itl), style="dim")
        return table

    def _spark(self, elapsed_s: float) -> Text:
        now = perf_counter()
        lately_s = min(_LATELY_S, max(elapsed_s, 0.1))
        tokens = sum(n for at, n in self._tokens if at > now - lately_s) / lately_s
        highest = max((ms for _, ms in self._recent), default=0.0)
        bars = "".join(_BARS[min(7, int(ms / highest * 7.99))] for _, ms in self._recent) if highest else ""
        return Text(
            f"  slowest TTFT lately {bars}   {tokens:,.0f} output tokens/s of ended turns", style="dim"
        )


def _cells(histogram: Histogram) -> list[str]:
    if not histogram.n:
        return ["0", *["–"] * 4]
    return [
        f"{histogram.n:,}",
        *(milliseconds(histogram.percentile_ms(percent)) for percent in (50, 90, 99, 100)),
    ]

from __future__ import annotations

import pytest

from bench.gateway import Run, holds
from bench.plan import Figures, Spread, Window
from bench.report import sheets
from bench.summary import rows_of, sweep_points


def run(contestant: str, repeat: int, cpu_us: float, ttft_ms: float, itl_p99_ms: float = 12.0) -> Run:
    window = Window(
        wall_s=1,
        tokens=800,
        tokens_per_s=800,
        itl_ms=Spread(800, 10, 11, itl_p99_ms, 20),
        cpu_us_per_token={"gateway": cpu_us, "client": 5},
        cpu_share={"gateway": 0.1, "client": 0.05},
    )
    ttft = Spread(8, ttft_ms, ttft_ms, 2 * ttft_ms, 2 * ttft_ms)
    figures = Figures(
        turns=8,
        complete=8,
        faults={},
        tokens=800,
        frames=800,
        merged_frames=0,
        wall_s=1.0,
        ttft_ms=ttft,
        whole=window,
        steady=window,
    )
    return Run("8 × 100/s", 8, 100, contestant, repeat, figures)


def test_ratios_are_taken_within_a_repeat() -> None:
    # The machine was half as fast in the second repeat: the ratio is the same in all, and so is its median.
    slowness = (1, 2, 1)
    runs = [run("firstword", repeat, 20 * slow, 3 * slow) for repeat, slow in enumerate(slowness)]
    runs += [run("naive", repeat, 100 * slow, 8 * slow) for repeat, slow in enumerate(slowness)]
    runs += [run("direct", repeat, 10 * slow, 1) for repeat, slow in enumerate(slowness)]
    naive = next(row for row in rows_of(runs) if row.contestant == "naive")
    assert naive.cpu_ratio == pytest.approx(5)
    assert naive.cpu_us_per_token == 100
    assert naive.added_p50_ms == 7
    assert naive.added_p99_ms == 14
    assert (naive.repeats, naive.turns, naive.complete) == (3, 24, 24)
    assert naive.itl_p99 == pytest.approx(1.2)


def test_without_firstword_there_is_no_ratio() -> None:
    (row,) = rows_of([run("naive", 0, 100, 8)])
    assert row.cpu_ratio is None
    assert row.added_p50_ms is None


def test_a_gateway_gives_way_where_its_itl_p99_passes_two_intervals() -> None:
    assert holds(run("firstword", 0, 20, 3, itl_p99_ms=20.0))
    assert not holds(run("firstword", 0, 20, 3, itl_p99_ms=20.1))


def test_every_line_of_a_sheet_has_a_cell_for_every_column() -> None:
    runs = [run("firstword", 0, 20, 3), run("direct", 0, 10, 1)]
    found = sheets(rows_of(runs), sweep_points(runs), [])
    assert [len(sheet.lines) for sheet in found] == [2, 2]
    for sheet in found:
        assert {len(line) for line in sheet.lines} == {len(sheet.columns)}
        assert sheet.markdown().count("\n|") == len(sheet.lines) + 2

"""The HTML report as a file: its data is exact, its dots are bounded, and nothing in it can become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sample_report import HOSTILE, sample_report

from loadtest.figures.document import Report, Stage
from loadtest.figures.turn_result import TurnResult
from loadtest.report.html import html_of, write_html
from loadtest.report.plot_data import MARKS, stage_plots

PAGE = Path(__file__).parents[3] / "loadtest/report/page"
_SCRIPT = re.compile(r"<script(?P<kind>[^>]*)>(?P<body>.*?)</script>", re.DOTALL)


def scripts_of(page: str) -> dict[bool, list[str]]:
    """True: those that run."""
    found = [(match["kind"] == "", match["body"]) for match in _SCRIPT.finditer(page)]
    return {runs: [body for other, body in found if other == runs] for runs in (True, False)}


def data_of(report: Report) -> dict[str, Any]:
    [data] = scripts_of(html_of(report).decode())[False]
    found: dict[str, Any] = json.loads(data)
    return found


def with_turns(stage: Stage, turns: list[TurnResult]) -> Stage:
    changed: Stage = msgspec.structs.replace(stage, turns=tuple(turns))
    return changed


def measured_ok(stage: Stage) -> list[TurnResult]:
    return [turn for turn in stage.turns if turn.outcome == "ok" and not turn.warmup]


def test_text_of_a_server_stays_data_when_it_looks_like_markup() -> None:
    report = sample_report(conversations=60, failing=0.2)
    page = html_of(report).decode()
    assert HOSTILE not in page
    assert "<img" not in page
    examples = [error["example"] for error in data_of(report)["stages"][0]["summary"]["errors"]]
    assert f"the server says: {HOSTILE}" in examples


@pytest.mark.parametrize(
    "model",
    ["</title><script>1</script>", "{{scripts}} {{data}}", "a\u2028b\u2029c", "<!--<script>", "\\1 \\g<0>"],
)
def test_model_name_stays_data_when_it_means_something_to_html_or_the_template(model: str) -> None:
    report = sample_report(conversations=2, turns=1)
    named = msgspec.structs.replace(report, config=msgspec.structs.replace(report.config, model=model))
    page = html_of(named).decode()
    assert data_of(named)["config"]["model"] == model
    assert scripts_of(page)[True] == scripts_of(html_of(report).decode())[True]
    [data] = scripts_of(page)[False]
    assert not set("<\u2028\u2029") & set(data)
    assert "<title>Load test of" in page
    assert page.count("</title>") == 1


def test_policy_allows_exactly_the_scripts_that_are_in_the_page() -> None:
    page = html_of(sample_report(conversations=2, turns=1)).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts_of(page)[True]]
    expected = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    directives = dict(part.split(" ", 1) for part in policy[1].split("; "))
    assert directives.pop("script-src").split() == expected
    assert directives == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_vendored_libraries_are_as_published() -> None:
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)$", (PAGE / "vendor/README.md").read_text(), re.MULTILINE)
    assert {name for _, name in listed} == {
        path.name for path in (PAGE / "vendor").iterdir() if path.name != "README.md"
    }
    for digest, name in listed:
        assert hashlib.sha256((PAGE / "vendor" / name).read_bytes()).hexdigest() == digest, name


def test_curves_are_exact_and_of_measured_turns_that_ended_well() -> None:
    [stage] = sample_report(failing=0.1).stages
    plots = stage_plots(stage, 100)
    ok = measured_ok(stage)
    assert plots.ttft is not None
    assert plots.itl is not None
    assert len(ok) < len(stage.turns)
    for curve, samples in (
        (plots.ttft, [turn.ttft_ms for turn in ok]),
        (plots.itl, [gap / 1_000 for turn in ok for gap in turn.itl_us]),
    ):
        assert curve.n == len(samples)
        exact = np.quantile(
            np.array(samples, float), 1 - 10.0 ** -np.linspace(0, np.log10(curve.n), len(curve.ms))
        )
        assert curve.ms == pytest.approx(exact.tolist(), abs=0.0006)
        assert curve.nines[-1] == pytest.approx(np.log10(curve.n), abs=0.001)


def test_percentiles_by_turn_are_exact() -> None:
    [stage] = sample_report().stages
    plots = stage_plots(stage, 10)
    assert [row.turn for row in plots.ttft_by_turn] == [1, 2, 3, 4, 5, 6, 7]
    for row in plots.ttft_by_turn:
        samples = [turn.ttft_ms for turn in measured_ok(stage) if turn.turn == row.turn]
        assert row.n == len(samples)
        assert [row.p50_ms, row.p90_ms, row.p99_ms] == pytest.approx(
            np.quantile(np.array(samples, float), (0.5, 0.9, 0.99)).tolist(), abs=0.0006
        )


def test_bars_and_what_lies_outside_them_are_all_samples() -> None:
    [stage] = sample_report(conversations=60).stages
    plots = stage_plots(stage, 10)
    gaps = sum(len(turn.itl_us) for turn in measured_ok(stage))
    for bars, samples in (
        (plots.ttft_bars, len(measured_ok(stage))),
        (plots.itl_bars, gaps - plots.zero_gaps),
    ):
        assert bars is not None
        assert sum(bars.counts) + bars.below + bars.above == samples
        assert len(bars.edges_ms) == len(bars.counts) + 1
    assert plots.zero_gaps > 0


def test_slowest_turns_are_drawn_when_dots_are_thinned() -> None:
    [stage] = sample_report().stages
    ok = sorted((turn.ttft_ms or 0.0 for turn in stage.turns if turn.outcome == "ok"), reverse=True)
    dots = stage_plots(stage, 200).dots
    assert dots.of == len(ok) > 200
    assert (
        len(dots.due_s)
        == len(dots.ttft_ms)
        == len(dots.turn)
        == len(dots.warmup)
        == len(dots.conversation)
        == 200
    )
    assert {round(ms, 2) for ms in ok[:20]} <= set(dots.ttft_ms)
    assert dots == stage_plots(stage, 200).dots


def test_failures_are_all_counted_and_rare_kinds_drawn_when_they_are_thinned() -> None:
    [stage] = sample_report(conversations=10, failing=0).stages
    one = stage.turns[0]
    often = [msgspec.structs.replace(one, outcome="timeout", due_s=float(at)) for at in range(9_000)]
    rare = [msgspec.structs.replace(one, outcome="malformed", due_s=3.5)] * 3
    marks = stage_plots(with_turns(stage, [*often, *rare, *stage.turns]), 10).marks
    assert marks.of == 9_003
    assert marks.counts == {"timeout": 9_000, "malformed": 3}
    assert marks.outcome.count("malformed") == 3
    assert MARKS * 0.9 < len(marks.due_s) <= MARKS
    assert {0.0, 8_999.0} <= set(marks.due_s)


def test_parts_of_the_waterfall_add_up_to_the_mean_ttft() -> None:
    [stage] = sample_report(own_queue=True).stages
    plots = stage_plots(stage, 10)
    ok = measured_ok(stage)
    assert [row.label for row in plots.phases] == ["all turns", *(f"turn {at}" for at in range(1, 8))]
    assert plots.phase_turns == len(ok)
    for row, turns in zip(plots.phases[:2], (ok, [turn for turn in ok if turn.turn == 1]), strict=True):
        mean = sum(turn.ttft_ms or 0.0 for turn in turns) / len(turns)
        assert sum(part.ms for part in row.parts) == pytest.approx(mean, abs=0.01)
    names = [part.name for part in plots.phases[0].parts]
    assert names[:3] == ["waited in the client", "admit", "embed"]
    assert names[-2:] == ["not told by the server", "network and client"]


def test_late_turns_share_a_row_of_the_waterfall_when_conversations_are_long() -> None:
    [stage] = sample_report(conversations=20, turns=30, gaps=2, failing=0).stages
    rows = stage_plots(stage, 10).phases
    assert [row.label for row in rows[1:3]] == ["turn 1", "turn 2"]
    assert rows[-1].label == "turn 12 on"
    assert sum(row.n for row in rows[1:]) == rows[0].n


@pytest.mark.parametrize("own_queue", [True, False])
def test_ttft_from_sent_is_shown_when_the_client_had_a_queue_of_its_own(own_queue: bool) -> None:
    [stage] = sample_report(conversations=40, own_queue=own_queue).stages
    assert (stage_plots(stage, 10).sent_ttft is not None) == own_queue


def test_pace_accounts_for_every_token() -> None:
    [stage] = sample_report(conversations=30).stages
    pace = stage_plots(stage, 10).pace
    assert pace is not None
    tokens = sum(turn.output_tokens for turn in stage.turns)
    assert sum(pace.tokens_per_s) * pace.step_s == pytest.approx(tokens, rel=0.001)


def test_warmup_ends_when_the_first_measured_turn_is_due() -> None:
    [stage] = sample_report(conversations=30).stages
    first = min(turn.due_s for turn in stage.turns if not turn.warmup)
    assert stage_plots(stage, 10).warmup_until_s == first
    measured = [turn for turn in stage.turns if not turn.warmup]
    assert stage_plots(with_turns(stage, measured), 10).warmup_until_s is None


def test_plots_are_empty_when_there_are_no_turns() -> None:
    report = sample_report(conversations=2, turns=1)
    [stage] = report.stages
    plots = stage_plots(with_turns(stage, []), 10)
    assert [plots.ttft, plots.sent_ttft, plots.server_ttft, plots.itl, plots.pace, plots.warmup_until_s] == [
        None
    ] * 6
    assert (plots.dots.of, plots.marks.of, plots.phases) == (0, 0, ())
    assert html_of(msgspec.structs.replace(report, stages=()))


def test_a_quantile_curve_is_flat_when_all_samples_are_alike() -> None:
    [stage] = sample_report(conversations=20, turns=1, failing=0).stages
    alike = [msgspec.structs.replace(turn, ttft_ms=100.0) for turn in stage.turns]
    plots = stage_plots(with_turns(stage, alike), 10)
    assert plots.ttft is not None
    assert set(plots.ttft.ms) == {100.0}
    assert plots.ttft_bars is not None
    assert sum(plots.ttft_bars.counts) == 18


def test_the_file_stays_small_when_the_run_was_long(tmp_path: Path) -> None:
    report = sample_report(conversations=60, gaps=4, failing=0.1)
    [stage] = report.stages
    many = with_turns(stage, list(stage.turns) * 60)
    assert len(many.turns) > 10_000
    path = tmp_path / "report.html"
    write_html(msgspec.structs.replace(report, stages=(many,)), path)
    assert path.stat().st_size < 1_500_000


def test_a_long_example_is_cut_and_says_so() -> None:
    report = sample_report(conversations=60, failing=0.2)
    [stage] = report.stages
    kind = msgspec.structs.replace(stage.summary.errors[0], example="x" * 5_000)
    summary = msgspec.structs.replace(stage.summary, errors=(kind,))
    long = msgspec.structs.replace(report, stages=(msgspec.structs.replace(stage, summary=summary),))
    [error] = data_of(long)["stages"][0]["summary"]["errors"]
    assert error["example"] == "x" * 1_000 + "… (cut short here)"


def test_the_old_file_stands_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    report = sample_report(conversations=2, turns=1)
    with pytest.raises(AttributeError):
        write_html(msgspec.structs.replace(report, stages=(None,)), path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.html", "old")]

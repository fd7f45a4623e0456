from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from loadtest.measure import TurnResult
from loadtest.run import Plan, Run
from loadtest.summary import Report, distribution, percentile, report_of, summarise, write_json
from loadtest.workload import Conversation, UserTurn


def turn(index: int = 1, ttft_ms: float | None = 100.0, **fields: object) -> TurnResult:
    values: dict[str, object] = {
        "conversation_id": "c",
        "turn": index,
        "warmup": False,
        "outcome": "ok",
        "status": 200,
        "detail": None,
        "due_s": 0.0,
        "ttfb_ms": 5.0,
        "ttft_ms": ttft_ms,
        "itl_ms": (10.0, 20.0),
        "e2e_ms": 200.0,
        "output_tokens": 3,
        "output_tokens_from": "usage",
        "finish_reason": "stop",
        "prompt_tokens": None,
        "cached_tokens": None,
        "server_ttft_ms": None,
    }
    return TurnResult(**(values | fields))  # type: ignore[arg-type]


def failed(outcome: str, status: int | None, detail: str, **fields: object) -> TurnResult:
    return turn(outcome=outcome, status=status, detail=detail, **fields)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 1000])
def test_percentiles_are_numpys(n: int) -> None:
    samples = np.random.default_rng(n).exponential(100, n)
    ordered = sorted(samples.tolist())
    for q in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert percentile(ordered, q) == pytest.approx(float(np.quantile(samples, q)))


def test_a_distribution_leaves_out_what_is_none_and_is_none_without_samples() -> None:
    values = distribution([3.0, None, 1.0])
    assert values is not None
    assert (values.n, values.mean, values.p50, values.max) == (2, 2.0, 2.0, 3.0)
    assert distribution([None]) is None


def test_failed_and_warm_up_turns_are_counted_but_in_no_latency() -> None:
    summary = summarise(
        [
            turn(warmup=True, ttft_ms=9000.0),
            failed("connection", None, "refused", warmup=True),
            turn(1, 100.0, prompt_tokens=100, cached_tokens=0),
            turn(2, 50.0, prompt_tokens=300, cached_tokens=150, server_ttft_ms=48.0),
            turn(2, None, itl_ms=(), output_tokens=0),
            failed("refused", 429, "queue full", ttft_ms=7000.0),
            failed("http_error", 500, "boom", ttft_ms=7000.0),
            failed("refused", 429, "queue still full", ttft_ms=7000.0),
        ],
        planned=8,
        duration_s=2.0,
    )
    assert (summary.turns, summary.ok, summary.failed, summary.not_sent) == (6, 3, 3, 2)
    assert (summary.warmup_turns, summary.warmup_failed, summary.without_token) == (2, 1, 1)
    assert summary.ttft_ms is not None
    assert (summary.ttft_ms.n, summary.ttft_ms.max) == (2, 100.0)
    assert [(kind.outcome, kind.status, kind.count, kind.example) for kind in summary.errors] == [
        ("http_error", 500, 1, "boom"),
        ("refused", 429, 2, "queue full"),
    ]
    assert [(index.turn, index.cached_share) for index in summary.ttft_by_turn] == [(1, 0.0), (2, 0.5)]
    assert summary.cached_share == pytest.approx(150 / 400)
    assert summary.client_minus_server_ttft_ms is not None
    assert summary.client_minus_server_ttft_ms.p50 == pytest.approx(2.0)
    assert summary.itl_ms is not None
    assert summary.itl_ms.n == 4
    assert (summary.output_tokens, summary.output_tokens_per_s) == (6, 3.0)


def test_a_run_in_which_everything_failed_has_a_summary_too() -> None:
    summary = summarise([failed("connection", None, "refused")], planned=1, duration_s=0.0)
    assert (summary.ttft_ms, summary.ttft_by_turn, summary.output_tokens_per_s) == (None, (), None)


def a_run() -> Run:
    conversation = Conversation("c", (UserTurn("q"),))
    plan = Plan("http://h/v1", None, "sk-secret", "w.txt", [], [conversation], 1, None, 1.0)
    return Run(plan, model="m", turns=[turn()], began=1.0, ended=3.0, finished=True)


def test_the_document_reads_back_as_it_was_and_holds_no_key(tmp_path: Path) -> None:
    report = report_of(a_run())
    path = tmp_path / "out.json"
    path.write_text("old")
    write_json(report, path)
    content = path.read_bytes()
    assert msgspec.json.decode(content, type=Report, strict=True) == report
    assert b"sk-secret" not in content
    assert "sk-secret" not in repr(a_run())
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_a_document_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(report_of(a_run()), path)
    assert list(tmp_path.iterdir()) == [path]

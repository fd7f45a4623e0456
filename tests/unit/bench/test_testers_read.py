from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.testers.aiperf import Aiperf
from bench.testers.guidellm import Guidellm
from bench.testers.truth import Spread
from bench.testers.vllm_bench import VllmBench


def vllm_result(rate: float) -> dict[str, Any]:
    result: dict[str, Any] = {"request_rate": rate, "completed": 24, "failed": 1}
    result |= {"request_throughput": 1.4, "output_throughput": 92.0}
    for metric, mean in (("ttft", 53.0), ("itl", 9.7), ("tpot", 10.0)):
        result |= {f"mean_{metric}_ms": mean, f"p50_{metric}_ms": mean - 1, f"p99_{metric}_ms": mean + 1}
    return result


def test_vllms_result_is_read_when_its_rate_is_infinite(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(vllm_result(float("inf"))))
    said = VllmBench().read(tmp_path)
    assert (said.ok, said.failed, said.tokens_per_s) == (24, 1, 92.0)
    assert said.ttft_ms == Spread(53.0, 52.0, 54.0)
    assert said.itl_ms == Spread(9.7, 8.7, 10.7)
    assert said.waited is None


def test_vllms_queue_is_read_when_it_reports_one(tmp_path: Path) -> None:
    queued = {"p50_e2el_including_client_queue_ms": 5_662.0, "p99_e2el_including_client_queue_ms": 10_559.0}
    (tmp_path / "result.json").write_text(json.dumps(vllm_result(4.0) | queued))
    waited = VllmBench().read(tmp_path).waited
    assert waited is not None
    assert (waited.p50_ms, waited.p99_ms, waited.includes_answer) == (5_662.0, 10_559.0, True)


def distribution(mean: float) -> dict[str, Any]:
    return {"successful": {"mean": mean, "percentiles": {"p50": mean - 1, "p99": mean + 1}}}


def guidellm_report(**metrics: Any) -> dict[str, Any]:
    metrics |= {
        "request_totals": {"successful": 24, "errored": 2},
        "time_to_first_token_ms": distribution(53.0),
        "inter_token_latency_ms": distribution(10.0),
        "time_per_output_token_ms": distribution(10.7),
        "requests_per_second": distribution(1.45),
        "output_tokens_per_second": distribution(93.0),
    }
    return {"benchmarks": [{"metrics": metrics, "warnings": [{"message": "late"}]}]}


def test_guidellms_itl_is_read_as_the_mean_gap_it_is_and_its_seconds_become_milliseconds(
    tmp_path: Path,
) -> None:
    scheduled = {"successful": {"percentiles": {"p50": 5.5, "p99": 10.75}}}
    report = guidellm_report(request_scheduled_latency=scheduled)
    (tmp_path / "report.json").write_text(json.dumps(report))
    said = Guidellm().read(tmp_path)
    assert said.itl_ms is None
    assert said.tpot_ms == Spread(10.0, 9.0, 11.0)
    assert said.waited is not None
    assert (said.waited.p50_ms, said.waited.p99_ms) == (5_500.0, 10_750.0)
    assert (said.ok, said.failed, said.remarks) == (24, 2, ("late",))


def test_guidellm_has_no_scheduled_latency_when_the_loop_was_closed(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(guidellm_report(request_scheduled_latency=None)))
    assert Guidellm().read(tmp_path).waited is None


def test_aiperfs_chunk_latency_is_read_as_the_gaps_and_its_itl_as_the_mean_gap(tmp_path: Path) -> None:
    found = {"request_count": {"avg": 24.0}, "completed_request_count": {"avg": 25.0}}
    found |= {"request_throughput": {"avg": 1.3}, "output_token_throughput": {"avg": 84.0}}
    for metric, mean in (
        ("time_to_first_token", 53.0),
        ("inter_chunk_latency", 9.0),
        ("inter_token_latency", 10.0),
    ):
        found[metric] = {"avg": mean, "p50": mean - 1, "p99": mean + 1}
    (tmp_path / "profile_export_aiperf.json").write_text(json.dumps(found))
    said = Aiperf().read(tmp_path)
    assert said.itl_ms == Spread(9.0, 8.0, 10.0)
    assert said.tpot_ms == Spread(10.0, 9.0, 11.0)
    assert (said.ok, said.failed, said.waited) == (24, 1, None)


def test_aiperfs_effective_latency_is_read_as_a_wait_that_ends_with_the_answer(tmp_path: Path) -> None:
    metric = {"avg": 1.0, "p50": 684.0, "p99": 690.0}
    names = ("request_count", "completed_request_count", "request_throughput", "output_token_throughput")
    names += ("time_to_first_token", "inter_chunk_latency", "inter_token_latency", "effective_latency")
    (tmp_path / "profile_export_aiperf.json").write_text(json.dumps(dict.fromkeys(names, metric)))
    waited = Aiperf().read(tmp_path).waited
    assert waited is not None
    assert (waited.called, waited.p99_ms, waited.includes_answer) == ("effective_latency", 690.0, True)


def test_a_tester_that_left_no_output_is_an_error_that_a_run_can_report(tmp_path: Path) -> None:
    for tester in (Aiperf(), Guidellm(), VllmBench()):
        with pytest.raises(OSError, match="No such file"):
            tester.read(tmp_path)

"""The command as a user meets it: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loadtest_command import bench
from loadtest_standin import StandIn


def test_all_well_exits_with_0_and_every_turn_is_in_the_document(
    standin: StandIn, questions: Path, tmp_path: Path
) -> None:
    workload = tmp_path / "w.jsonl"
    workload.write_text(
        '{"id": "c", "turns": [{"user": "one"}, {"user": "two"}]}\n{"question": "q"}\n{"question": "r"}\n'
    )
    out, table, page = (tmp_path / f"out.{kind}" for kind in ("json", "csv", "html"))
    result = bench(
        "run", workload, "--url", standin.url_of("plain"), "--concurrency", 4, "--max-tokens", 7, "--warmup", 1,
        "--json", out, "--csv", table, "--html", page, "--body", '{"temperature": 0}',
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for expected in (
        "first at http",
        "2 turns in",
        "Time to first token",
        "inter-token (ITL)",
        "output tokens/s",
        "2 warm-up turns are in no figure",
        "Closed loop",
        f"Written: {out}",
    ):
        assert expected in result.output
    assert {(request.body["max_tokens"], request.body["temperature"]) for request in standin.requests} == {
        (7, 0)
    }
    document = json.loads(out.read_text())
    assert (document["schema"], document["interrupted"]) == ("firstword-bench/2", False)
    assert document["config"]["model"] == "first"
    (stage,) = document["stages"]
    assert stage["summary"]["ttft_ms"]["n"] == 2
    assert sorted(turn["warmup"] for turn in stage["turns"]) == [False, False, True, True]
    assert len(table.read_text().splitlines()) == 5
    assert page.read_text().startswith("<!doctype html>") or "<html" in page.read_text()

    again = bench("report", out)
    assert again.exit_code == 0
    assert "Time to first token" in again.output
    assert bench("report", out, "--csv", tmp_path / "again.csv").exit_code == 0
    assert (tmp_path / "again.csv").read_text() == table.read_text()
    beside = bench("compare", out, out)
    assert beside.exit_code == 0
    assert "1.000" in beside.output


def test_failed_turns_exit_with_1_and_are_explained(standin: StandIn, tmp_path: Path) -> None:
    workload = tmp_path / "w.jsonl"
    workload.write_text('{"id": "c", "turns": [{"user": "one"}, {"user": "two"}, {"user": "three"}]}\n')
    result = bench("run", workload, "--url", standin.url_of("second-fails"), "--model", "m")
    assert result.exit_code == 1
    assert "stream_error" in result.output
    assert "once is [bold]enough[/bold]" in result.output
    assert "1 failed turns are in no latency" in result.output
    assert "1 turns were never sent" in result.output


@pytest.mark.parametrize(
    ("behaviour", "slo", "exit_code", "said"),
    [
        ("timed", "ttft_p99<60s,error_rate<1%", 0, "ttft_p99<60s: met"),
        ("busy", "refusal_rate<=100%", 0, "refusal_rate<=100%: met"),
        ("busy", "refusal_rate<=100%,ttft_p99<60s", 1, "ttft_p99<60s: MISSED (nothing was measured)"),
    ],
)
def test_an_slo_decides_the_exit_code(
    standin: StandIn, questions: Path, behaviour: str, slo: str, exit_code: int, said: str
) -> None:
    result = bench("run", questions, "--url", standin.url_of(behaviour), "--slo", slo)
    assert result.exit_code == exit_code, result.output
    assert said in result.output


def test_several_rates_are_several_stages_and_the_best_that_met_is_named(
    standin: StandIn, questions: Path
) -> None:
    result = bench(
        "run",
        questions,
        "--url",
        standin.url_of("quick"),
        "--rate",
        "50,100",
        "--slo",
        "ttft_p99<60s",
        "--arrivals",
        "constant",
    )
    assert result.exit_code == 0, result.output
    assert "100 conversations per second met ttft_p99<60s." in result.output
    for stage in ("50/s", "100/s"):
        assert f"{stage}: 3 turns" in result.output


def test_a_search_without_a_rate_that_meets_exits_with_1(standin: StandIn, questions: Path) -> None:
    result = bench(
        "run", questions, "--url", standin.url_of("quick"), "--rate", "0.015", "--find-rate", "--slo", "ttft_p99<1us",
        "--duration", "0.1", "--arrivals", "constant",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "No rate that was tried met ttft_p99<1us." in result.output


def test_the_api_key_comes_from_the_environment_and_is_never_shown(
    standin: StandIn, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-this-one")
    monkeypatch.setenv("FIRSTWORD_API_KEY", " sk-very-secret\n")
    out = tmp_path / "out.json"
    result = bench("run", questions, "--url", standin.url_of("echoes-key"), "--json", out)
    assert result.exit_code == 1
    assert standin.requests[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in result.output + out.read_text()
    assert "bad key [API key]" in result.output


def test_a_key_that_no_header_can_carry_is_refused(
    questions: Path, monkeypatch: pytest.MonkeyPatch, dead_url: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sécret")
    result = bench("run", questions, "--url", dead_url)
    assert result.exit_code == 2
    assert "OPENAI_API_KEY holds characters" in result.output
    assert "cret" not in result.output


def test_a_target_that_cannot_be_measured_exits_with_2_and_one_message(
    standin: StandIn, questions: Path, dead_url: str
) -> None:
    for url, message in (
        (dead_url, f"{dead_url} does not answer"),
        (
            standin.url_of("unauthorized"),
            "refuses the API key (401). Set FIRSTWORD_API_KEY or OPENAI_API_KEY to a valid one.",
        ),
        (standin.url_of("html"), "names no model. Name one with --model"),
    ):
        result = bench("run", questions, "--url", url)
        assert result.exit_code == 2
        (line,) = result.output.strip().splitlines()
        assert message in line

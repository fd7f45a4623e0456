"""Options and files that cannot be used: each is named, with the next step, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from loadtest_command import bench
from loadtest_standin import StandIn

RATE = ["--rate", "1"]
SLO = ["--slo", "ttft_p99<1s"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "nonsense"], "--url 'nonsense' is not a server's address"),
        (["--warmup", "3"], "--warmup 3 leaves nothing to measure of questions.txt, which holds 3. Lower it to 2."),
        (["--json", "/no/such/folder/out.json"], "--json /no/such/folder/out.json: no file can be written there"),
        (["--csv", "."], "--csv .: no file can be written there"),
        (["--html", "/no/such/folder/out.html"], "--html /no/such/folder/out.html: no file"),
        (["--concurrency", "0"], "--concurrency '0'"),
        (["--concurrency", "1.5"], "expected whole numbers"),
        (["--concurrency", "1,x"], "--concurrency '1,x'"),
        (["--rate", "-1"], "--rate '-1'"),
        (["--rate", "nan"], "--rate 'nan'"),
        (["--rate", "1e8"], "--rate"),
        ([*RATE, "--concurrency", "1"], "--rate is an open loop and --concurrency a closed one"),
        ([*RATE, "--arrivals", "trace"], "--arrivals trace has its own rate"),
        (["--arrivals", "trace"], "conversation 'line-1' of the workload has no time to begin at"),
        (["--arrivals", "trace", "--concurrency", "1"], "--arrivals trace is an open loop"),
        (["--arrivals", "trace", "--popularity", "uniform"], "--popularity draws conversations"),
        (["--arrivals", "trace", "--warmup", "1"], "--warmup takes conversations from a trace"),
        (["--arrivals", "trace", "--speed", "0"], "--speed"),
        (["--arrivals", "gamma"], "--arrivals gamma"),
        (["--arrivals", "constant", "--concurrency", "2"], "--arrivals constant"),
        ([*RATE, "--arrivals", "gamma", "--burstiness", "0"], "--burstiness"),
        (["--max-concurrency", "2"], "--max-concurrency bounds an open loop"),
        (["--find-rate", *RATE], "--find-rate needs --slo"),
        (["--find-rate", *SLO], "--find-rate needs one --rate"),
        (["--find-rate", "--rate", "1,2", *SLO], "--find-rate needs one --rate"),
        (["--duration", "1", "--warmup-seconds", "1"], "--warmup-seconds leaves nothing of --duration"),
        (["--slo", "ttft<1s"], "--slo: 'ttft<1s' knows no 'ttft'"),
        (["--goodput", "ttft_p99<1s"], "--goodput: "),
        (["--think", "soon"], "--think 'soon'"),
        (["--popularity", "some"], "--popularity 'some'"),
        (["--body", "{"], "--body: "),
        (["--body", "[]"], "--body: expected a JSON object."),
        (["--body", '{"messages": []}'], "--body cannot set messages"),
        (["--synthetic", "conversations=1"], "Give a workload: a file, or --synthetic"),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout"),
        (["--timeout", "inf"], "--timeout"),
        (["--duration", "nan"], "--duration"),
        (["--warmup-seconds", "nan"], "--warmup-seconds"),
        (["--type-ahead", "nan"], "--type-ahead"),
        (["--kind", "novel"], "--kind"),
        (["--processes", "0"], "--processes"),
    ],
)  # fmt: skip
def test_bad_usage_exits_with_2_and_names_it_before_anything_is_sent(
    options: list[str], message: str, questions: Path, standin: StandIn
) -> None:
    before = standin.connections
    url = [] if "--url" in options else ["--url", standin.url_of("quick")]
    result = bench("run", questions, *url, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert standin.connections == before


def test_without_a_workload_the_next_step_is_named(tmp_path: Path) -> None:
    assert "Give a workload" in bench("run").output
    missing = bench("run", tmp_path / "absent.txt")
    assert (missing.exit_code, "absent.txt: No such file" in missing.output) == (2, True)
    bad = tmp_path / "w.jsonl"
    bad.write_text('{"question": "fine"}\nnot json\n')
    assert f"{bad}:2: " in bench("run", bad).output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "is no report"),
        ('{"schema": "firstword-bench/1"}', "is a 'firstword-bench/1' document"),
        ('{"schema": "firstword-bench/2"}', "is no report"),
        ("[" * 100_000, "is no report"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    for command in (["report", path], ["compare", path, path]):
        result = bench(*command)
        assert result.exit_code == 2
        assert message in result.output
        assert "--json wrote" in result.output or "Measure again" in result.output

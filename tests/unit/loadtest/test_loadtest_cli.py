"""The command as a user meets it: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from loadtest_standin import StandIn
from typer.testing import CliRunner, Result

from loadtest.cli import bench


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.txt"
    path.write_text("one?\ntwo?\nthree?\n")
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_all_well_exits_with_0_and_prints_ttft_by_turn(standin: StandIn, tmp_path: Path) -> None:
    workload = tmp_path / "w.jsonl"
    workload.write_text('{"id": "c", "turns": [{"user": "one"}, {"user": "two"}]}\n{"question": "q"}\n')
    result = run(workload, "--url", standin.url("plain"), "--concurrency", 4, "--max-tokens", 7)
    assert result.exit_code == 0, result.output
    for expected in (
        "first-model",
        "3 turns of 2 conversations",
        "Time to first token",
        "p99",
        "17%",
        "inter-token (ITL)",
        "output tokens/s",
        "No warm-up",
        "never 4 at a time",
    ):
        assert expected in result.output
    assert {request["max_tokens"] for request in standin.requests} == {7}


def test_failed_turns_exit_with_1_and_are_explained(standin: StandIn, questions: Path) -> None:
    result = run(questions, "--url", standin.url("error-event"), "--model", "m")
    assert result.exit_code == 1
    assert "stream_error" in result.output
    assert "the engine [bold]died[/bold]" in result.output
    assert "3 failed turns are in no latency" in result.output


def test_the_document_holds_every_turn_and_marks_the_warm_up(
    standin: StandIn, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    result = run(questions, "--url", standin.url("late"), "--warmup", 1, "--conversations", 1, "--json", out)
    assert result.exit_code == 0, result.output
    assert "1 warm-up turns are in no figure" in result.output
    assert "TTFT client − server" in result.output
    document = json.loads(out.read_text())
    assert document["schema"] == "firstword-bench/1"
    assert document["interrupted"] is False
    assert document["config"]["model"] == "first-model"
    assert document["summary"]["ttft_ms"]["n"] == 1
    assert [turn["warmup"] for turn in document["turns"]] == [True, False]
    assert [request["messages"][0]["content"] for request in standin.requests] == ["one?", "two?"]


def test_the_api_key_comes_from_the_environment_and_is_never_shown(
    standin: StandIn, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-this-one")
    monkeypatch.setenv("FIRSTWORD_API_KEY", " sk-very-secret\n")
    out = tmp_path / "out.json"
    result = run(questions, "--url", standin.url("echoes-key"), "--json", out)
    assert result.exit_code == 1
    assert standin.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in result.output + out.read_text()


def test_a_key_that_no_header_can_carry_is_refused(
    questions: Path, monkeypatch: pytest.MonkeyPatch, dead_url: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sécret")
    result = run(questions, "--url", dead_url)
    assert result.exit_code == 2
    assert "OPENAI_API_KEY holds characters" in result.output
    assert "cret" not in result.output


def test_an_unreachable_target_exits_with_2_and_one_message(questions: Path, dead_url: str) -> None:
    result = run(questions, "--url", dead_url)
    assert result.exit_code == 2
    assert f"{dead_url} does not answer" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.txt"], "absent.txt: No such file"),
        (["{questions}", "--url", "nonsense"], "--url 'nonsense' is not a server's address"),
        (["{questions}", "--warmup", "3"], "leaves nothing to measure"),
        (["{questions}", "--json", "/no/such/folder/out.json"], "no file can be written there"),
        (["{questions}", "--concurrency", "0"], "--concurrency"),
        (["{questions}", "--timeout", "0"], "--timeout"),
        (["{questions}", "--timeout", "nan"], "--timeout"),
        (["{questions}", "--timeout", "inf"], "--timeout"),
    ],
)
def test_bad_usage_exits_with_2_and_names_it(arguments: list[str], message: str, questions: Path) -> None:
    result = run(*(argument.format(questions=questions) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    workload = tmp_path / "w.jsonl"
    workload.write_text('{"question": "fine"}\nnot json\n')
    result = run(workload)
    assert result.exit_code == 2
    assert f"{workload}:2: " in result.output


def test_an_interrupted_run_reports_what_it_has(
    standin: StandIn, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loadtest.report import LiveProgress

    def interrupt(self: LiveProgress, turn: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveProgress, "on_turn", interrupt)
    out = tmp_path / "out.json"
    result = run(questions, "--url", standin.url("empty"), "--json", out)
    assert result.exit_code == 130
    assert "Interrupted" in result.output
    document = json.loads(out.read_text())
    assert document["interrupted"] is True
    assert (document["summary"]["turns"], document["summary"]["not_sent"]) == (1, 2)


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, loadtest.cli; "
        "print([m for m in ('httpx', 'rich', 'msgspec', 'uvloop', 'numpy', 'server', 'retrieval') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

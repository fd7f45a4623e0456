"""`firstword bench target` as a process: one line when it listens, code 0 when it is told to stop, no tracebacks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer

from server.commands.target import target
from server.errors import SetupError
from server.settings import PROJECT_ROOT

_SCRIPT = "import typer; from server.commands.target import target; typer.run(target)"


def ask(url: str) -> str:
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
    with urllib.request.urlopen(url + "/v1/chat/completions", body, timeout=20) as response:
        said: str = json.load(response)["choices"][0]["message"]["content"]
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_when_it_is_told_to_stop_then_it_exits_with_0_and_a_whole_log(tmp_path: Path, number: int) -> None:
    log = tmp_path / "log.jsonl"
    options = ["--port", "0", "--ttft-ms", "3", "--interval-ms", "1", "--tokens", "4", "--log", str(log)]
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *options],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.fullmatch(
                r"target on (http://127\.0\.0\.1:\d+): TTFT 3 ms, a token every 1 ms, 4 tokens, 1024 slots\n",
                line,
            )
            assert found, line
            assert len(ask(found[1])) == 4 * 4
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")
    assert [json.loads(line)["outcome"] for line in log.read_bytes().splitlines()] == ["ok"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"refuse_share": 0.6, "cut_share": 0.6}, "add up to 1.2"),
        ({"ttft_ms": float("nan")}, "--ttft-ms nan"),
        ({"interval_ms": float("inf")}, "--interval-ms inf"),
        ({"prefill_tokens_per_s": float("nan")}, "--prefill-tokens-per-s nan"),
        ({"fail_share": float("nan")}, "add up to nan"),
        ({"block_size": 20}, "--block-size 20"),
        ({"model": "a\r\nb"}, "--model"),
        ({"log": Path("/missing/log.jsonl"), "port": 0}, "--log /missing/log.jsonl"),
        ({"host": "203.0.113.1"}, "203.0.113.1:9000"),
        ({"host": "no such host"}, "no such host:9000"),
    ],
)
def test_a_mistake_is_told_with_its_option(options: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError) as raised:
        target(**options)  # the options by name
    assert said in raised.value.message
    assert raised.value.next_step


def test_the_command_can_be_built() -> None:
    app = typer.Typer()
    app.command("target")(target)
    assert {parameter.name for parameter in typer.main.get_command(app).params} >= {"ttft_ms", "log", "slots"}

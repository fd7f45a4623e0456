"""The command as a process: Ctrl-C, and what it imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

from loadtest_standin import StandIn


def test_ctrl_c_reports_what_there_is_and_exits_with_130(
    standin: StandIn, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "server.cli",
        "bench",
        "run",
        str(questions),
        "--url",
        standin.url_of("hangs"),
        "--json",
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not standin.requests:
        assert process.poll() is None
        sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted: 1 turns that were under way are in no figure." in said
    assert "Traceback" not in said
    document = json.loads(out.read_text())
    assert document["interrupted"] is True
    summary = document["stages"][0]["summary"]
    assert (summary["turns"], summary["unfinished"]) == (0, 1)


def test_a_second_ctrl_c_ends_at_once(standin: StandIn, questions: Path) -> None:
    """Twice at the same moment: the first is heard by the bench, the second by Python."""
    command = [
        sys.executable,
        "-m",
        "server.cli",
        "bench",
        "run",
        str(questions),
        "--url",
        standin.url_of("hangs"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not standin.requests:
        assert process.poll() is None
        sleep(0.01)
    process.send_signal(signal.SIGINT)
    sleep(0.01)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from server.cli import app
for arguments in (["bench", "--help"], ["bench", "run", "--help"], ["bench", "compare", "--help"]):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code
heavy = ("httpx", "msgspec", "uvloop", "numpy", "hdrh", "httptools", "retrieval", "asyncio.base_events")
print("HEAVY", [name for name in heavy if name in sys.modules])
"""
    environment = {**os.environ, "COLUMNS": "200"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.count("Usage:") == 3
    assert result.stdout.strip().splitlines()[-1] == "HEAVY []"

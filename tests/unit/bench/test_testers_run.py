from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.cpu import process_tree
from bench.process import free_port
from bench.testers.contestant import Command
from bench.testers.run import Client
from bench.testers.truth import read_log

_ROOT = Path(__file__).parents[3]
_EVENT_OF_ROLE = b'"delta":{"role"'
_EVENT_OF_TEXT = b'"delta":{"content"'


@contextmanager
def target(log: Path, *options: str) -> Iterator[int]:
    port = free_port()
    argv = [sys.executable, "-m", "bench.testers.target", "--port", str(port), "--log", str(log), *options]
    with subprocess.Popen(
        argv, cwd=_ROOT, env=os.environ | {"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests'}"}
    ) as process:
        try:
            for _ in range(200):
                with suppress(ConnectionError):
                    ask(port, "GET", "/", None)
                    break
                time.sleep(0.05)
            yield port
            ask(port, "GET", "/", None)  # answered after what was sent before has been noted
        finally:
            process.terminate()


def ask(port: int, method: str, path: str, body: dict[str, object] | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"x-request-id": "r-7"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_target_logs_each_chat_request_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with target(log, "--ttft-ms", "20", "--interval-ms", "5") as port:
        assert ask(port, "POST", "/tokenize", {"prompt": "x"})[0] == 404
        status, text = ask(port, "POST", "/v1/chat/completions", {"max_tokens": 4})
    assert status == 200
    assert text.count(_EVENT_OF_TEXT) == 4
    [request] = read_log(log)
    assert (request.request_id, request.tokens, request.outcome) == ("r-7", 4, "ok")
    assert request.first_token_at is not None
    assert request.first_token_at - request.received_at >= 0.02
    assert request.gaps_us is not None
    assert len(request.gaps_us) == 3


def test_the_role_chunk_comes_alone_when_it_is_asked_to_come_first(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with target(log, "--ttft-ms", "150", "--interval-ms", "1", "--role-first") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/v1/chat/completions", json.dumps({"max_tokens": 2}))
        response = connection.getresponse()
        first = response.read1()
        rest = response.read()
        connection.close()
    assert _EVENT_OF_ROLE in first
    assert _EVENT_OF_TEXT not in first
    assert _EVENT_OF_ROLE not in rest
    assert rest.count(_EVENT_OF_TEXT) == 2


def test_leaving_a_client_ends_all_its_processes_those_in_sessions_of_their_own_too(tmp_path: Path) -> None:
    command = Command(("sh", "-c", "setsid sleep 61 & sleep 62"))
    with Client(command, tmp_path, [], sorted(os.sched_getaffinity(0))) as client:
        pid = client._process.pid
        for _ in range(100):
            if len(tree := process_tree(pid)) >= 3:
                break
            time.sleep(0.05)
    assert len(tree) >= 3
    for _ in range(100):
        left = [member for member in tree if Path(f"/proc/{member}/cmdline").exists() and is_alive(member)]
        if not left:
            break
        time.sleep(0.05)
    assert left == []


def is_alive(pid: int) -> bool:
    """A zombie is not: whoever inherits it has yet to collect it."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_clients_cpu_time_is_that_of_its_children_too(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    command = Command(("sh", "-c", f"{sys.executable} -c '{spin}'; true"))
    with Client(command, tmp_path, [], sorted(os.sched_getaffinity(0))) as client:
        assert client.wait() == 0
    assert client.cost(None).whole_s >= 0.3
    assert client.cost(None).streaming_s is None

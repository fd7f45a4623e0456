"""`curl -N`, whose output is read as it comes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any, BinaryIO

from bare_wire import Reply, scenarios
from protocol import Ask, serve


def send(ask: Ask, body: dict[str, Any]) -> Reply:
    """curl does the retrying; the status and headers of every try are in its output (`--include`)."""
    curl = subprocess.Popen(
        [
            *("curl", "--no-buffer", "--silent", "--show-error", "--include", "--noproxy", "*"),
            *("--retry", "3", "--fail-with-body"),
            *("--header", "content-type: application/json"),
            *("--header", f"authorization: Bearer {ask.api_key}"),
            *("--data-binary", "@-", f"{ask.base_url}/chat/completions"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert curl.stdin is not None
    assert curl.stdout is not None
    curl.stdin.write(json.dumps(body).encode())
    curl.stdin.close()
    status, headers = _head(curl.stdout)
    while status == 429:
        curl.stdout.read(int(headers["content-length"]))
        status, headers = _head(curl.stdout)
    if headers["content-type"].startswith("text/event-stream"):
        return Reply(status, events=_events(curl, curl.stdout, ask.close_after_deltas))
    found = json.loads(curl.stdout.read())
    curl.stdout.close()
    assert curl.wait() == (0 if status == 200 else 22)
    return Reply(status, body=found)


def _head(output: BinaryIO) -> tuple[int, dict[str, str]]:
    """Status and headers of the next response."""
    status = int(output.readline().split()[1])
    headers: dict[str, str] = {}
    while line := output.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


def _events(
    curl: subprocess.Popen[bytes], output: BinaryIO, close_after_deltas: int
) -> Iterator[dict[str, Any]]:
    """Strict: a line is empty, a comment or `data: `, and nothing follows `[DONE]`."""
    deltas = 0
    done = False
    for line in output:
        assert line.endswith(b"\n")
        if line in (b"\n", b": keep-alive\n"):
            continue
        assert not done, line
        assert line.startswith(b"data: "), line
        if line == b"data: [DONE]\n":
            done = True
            continue
        event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        yield event
        deltas += any(choice["delta"].get("content") for choice in event.get("choices", []))
        if deltas == close_after_deltas and close_after_deltas:
            curl.terminate()
            break
    output.close()
    assert curl.wait() == 0 or close_after_deltas
    assert done or close_after_deltas


if __name__ == "__main__":
    found = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    serve(" ".join(found.split()[:2]), scenarios(send))

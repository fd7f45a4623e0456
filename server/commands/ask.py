"""`firstword ask`: one question to a running server, streamed to the terminal."""

from __future__ import annotations

import json
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

_PHASES = (
    "admit",
    "recall",
    "embed",
    "search",
    "rerank",
    "assemble",
    "engine_queue",
    "prefill",
    "first_byte",
)
_TIMEOUT = httpx.Timeout(10, read=300)


def ask_server(question: str, url: str, api_key: str | None) -> int:
    """Returns the exit code: 0 after a whole answer, 1 otherwise."""
    answer, notes = Console(), Console(stderr=True)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as client:
            return _ask(client, question, answer, notes)
    except httpx.ConnectError:
        return _fail(
            notes, f"no server answers at {url}", "start one with `make serve`, or name it with --url"
        )
    except httpx.HTTPError as error:
        return _fail(notes, f"the connection to {url} broke: {error or type(error).__name__}", "ask again")
    except (json.JSONDecodeError, KeyError, IndexError):
        return _fail(notes, f"{url} does not answer as Firstword does", "check --url")


def _ask(client: httpx.Client, question: str, answer: Console, notes: Console) -> int:
    models = client.get("/v1/models")
    if models.is_error:
        return _refused(notes, models)
    body = {
        "model": models.json()["data"][0]["id"],
        "stream": True,
        "messages": [{"role": "user", "content": question}],
    }
    finished = False
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            response.read()
            return _refused(notes, response)
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if error := chunk.get("error"):
                answer.print()
                return _fail(notes, error["message"], "ask again")
            ours, choice = chunk.get("firstword", {}), chunk["choices"][0]
            _print_sources(notes, ours.get("citations", []))
            answer.print(
                choice["delta"].get("content", ""), end="", markup=False, highlight=False, soft_wrap=True
            )
            if choice["finish_reason"] is not None:
                finished = True
                answer.print()
                notes.print(f"[dim]{_breakdown(ours['timing'])}[/dim]", highlight=False)
    if not finished:
        return _fail(notes, "the answer was cut short", "ask again")
    return 0


def _print_sources(notes: Console, citations: list[dict[str, Any]]) -> None:
    for citation in citations:
        name, score = escape(citation["filename"]), citation["score"]
        notes.print(f"[dim]\\[{citation['index']}] {name} ({score:.2f})[/dim]", highlight=False)


def _breakdown(timing: dict[str, Any]) -> str:
    """One line: where the time to the first word went."""
    phases = ", ".join(f"{phase} {timing[phase]:.0f}" for phase in _PHASES if timing[phase] >= 0.5)
    cached = f"{timing['cached_tokens']:,} of {timing['prompt_tokens']:,} prompt tokens from cache"
    if timing["ttft"] is None:
        return f"the answer was empty; {cached}"
    return f"first word after {timing['ttft']:.0f} ms ({phases}); {cached}"


def _refused(notes: Console, response: httpx.Response) -> int:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"status {response.status_code}"
    next_step = (
        "set FIRSTWORD_API_KEY" if response.status_code == 401 else "see the handbook's page on errors"
    )
    if "retry-after" in response.headers:
        next_step = f"ask again in {response.headers['retry-after']} s"
    return _fail(notes, message, next_step)


def _fail(notes: Console, message: str, next_step: str) -> int:
    notes.print(f"[bold red]error[/bold red] {escape(message)}\n  → {escape(next_step)}", highlight=False)
    return 1

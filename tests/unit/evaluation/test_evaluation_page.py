"""The report as a page, a document and tables: whole, exact, and nothing in it can become markup."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from evaluation_made import observation, report_of
from rich.console import Console

from server.evaluation.figures import MODES, Observation
from server.evaluation.page import page_of, write_page
from server.evaluation.report import Failure, Report, write_json
from server.evaluation.tables import print_report


def sample(conversations: int = 12, turns: int = 3) -> list[Observation]:
    return [
        observation(
            mode,
            f"c{at}",
            turn,
            ttft_ms=100.0 * turn + 7 * at + 1,
            cached_tokens=min(900, 300 * place),
            f1=(0.3 + 0.01 * at),
            source_precision=0.5 if turn == turns else None,
            source_recall=0.75 if turn == turns else None,
            names_relevant=at % 2 == 0 if turn == turns else None,
        )
        for place, mode in enumerate(MODES)
        for at in range(conversations)
        for turn in range(1, turns + 1)
    ]


FAILURE = Failure("c1", "append", 2, "EngineDied: <b>gone</b> [red]")


def test_the_page_holds_the_figures_and_no_questions_and_no_markup_of_others() -> None:
    report = report_of(sample(), (FAILURE,))
    page = page_of(report).decode()
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    told = msgspec.json.decode(data, type=Report)
    assert told == msgspec.structs.replace(report, observations=())
    assert "<img" not in page
    assert "<b>gone" not in page
    assert "In April." not in page


def test_the_page_loads_nothing() -> None:
    page = page_of(report_of(sample())).decode()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page)


def test_the_document_holds_every_turn(tmp_path: Path) -> None:
    report = report_of(sample(), (FAILURE,), interrupted=True)
    write_json(report, tmp_path / "report.json")
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report) == report
    assert len(json.loads((tmp_path / "report.json").read_bytes())["observations"]) == 5 * 12 * 3


def printed(report: Report) -> str:
    said = io.StringIO()
    print_report(report, Console(file=said, width=200))
    return said.getvalue()


def test_the_tables_name_every_mode_and_what_is_missing() -> None:
    said = printed(report_of(sample(), (FAILURE,), interrupted=True))
    for mode in MODES:
        assert mode in said
    assert "EngineDied: <b>gone</b> [red]" in said
    assert "Interrupted" in said


@pytest.mark.parametrize("seen", [[], [observation()], sample(2, 1)])
def test_tables_and_page_are_made_of_little_too(seen: list[Observation]) -> None:
    assert printed(report_of(seen))
    assert page_of(report_of(seen))


@pytest.mark.browser
def test_the_page_draws_every_plot_and_says_nothing_to_the_console(tmp_path: Path) -> None:
    """`FIRSTWORD_REPORT_SCREENSHOT=path.png` keeps a picture."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("no Chromium on this machine; `make browser` installs it")
    path = tmp_path / "report.html"
    write_page(report_of(sample(), (FAILURE,)), path)
    said: list[str] = []
    asked_for: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme="dark")
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked_for.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=yes]")
        drawn = page.evaluate(
            "[...document.querySelectorAll('figure.plot')].filter((f) => f.querySelector('svg')).map((f) => f.id)"
        )
        wider = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        if picture := os.environ.get("FIRSTWORD_REPORT_SCREENSHOT"):
            page.screenshot(path=picture, full_page=True)
        browser.close()
    assert drawn == ["ttft", "cached", "computed", "prompt", "quality-0", "quality-1", "quality-2"]
    assert said == []
    assert asked_for == [path.as_uri()]
    assert not wider

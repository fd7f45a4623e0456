"""A page's `fetch` in headless Chromium, reading the stream as it comes (`../browser/fetch.js`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bare_wire import Reply, scenarios
from playwright.sync_api import Page, sync_playwright
from protocol import Ask, serve

FETCH = Path(__file__).parent.parent / "browser" / "fetch.js"


class Browser:
    """One page, moved to whatever server is asked, so that each request stays in its origin."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._fetch = FETCH.read_text(encoding="utf-8")

    def send(self, ask: Ask, body: dict[str, Any]) -> Reply:
        origin = ask.base_url.removesuffix("/v1")
        if not self._page.url.startswith(origin + "/"):
            self._page.goto(origin + "/health/live")
        job = {"apiKey": ask.api_key, "body": body, "closeAfterDeltas": ask.close_after_deltas}
        found = self._page.evaluate(self._fetch, job)
        return Reply(found["status"], events=found["events"], body=found["body"])


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium on this machine; `make browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        serve(f"Chromium {browser.version}", scenarios(Browser(browser.new_page()).send))
        browser.close()


if __name__ == "__main__":
    main()

"""The documents page as its tests use it: a gateway in a thread of its own, the open page, files, and rows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import FilePayload, Locator, Page, expect

from gateways import running
from server.settings import PROJECT_ROOT, Settings, load_settings

READ_IN_MS = 20_000  # the first file waits for the process that reads them
MAX_FILE_BYTES = 300_000
KEYS = {"alice": "sk-alice-0123456789abcdef", "bob": "sk-bob-0123456789abcdef"}
"""Bob may add to the store `default`, Alice may not."""

RETURNS = b"# Returns\n\n## Time limit\n\nAn item can be returned within 45 days of delivery.\n"
HOURS = b"# Opening hours\n\n## Sunday\n\nThe shop is closed on Sunday.\n"
HOSTILE = "<img src=x onerror=window.pwned=1>.md"


def settings_of(folder: Path, chat_model: Path) -> Settings:
    """Of a gateway with a simulated engine, a hashing embedder, API keys and one sample document."""
    knowledge = folder / "knowledge"
    knowledge.mkdir()
    (knowledge / "hours.md").write_bytes(HOURS)
    return load_settings(
        PROJECT_ROOT / "configs" / "default.toml",
        {
            "data_dir": folder / "var",
            "engine.kind": "simulated",
            "engine.model": str(chat_model),
            "engine.dtype": "float32",
            "engine.tool_parser": "",
            "retrieval.embedder_kind": "hashing",
            "retrieval.min_score": -1.0,
            "retrieval.sample_knowledge": str(knowledge),
            "retrieval.max_document_bytes": MAX_FILE_BYTES,
            "auth.api_keys": KEYS,
            "files.default_store_writers": ("bob",),
            "http.shutdown_grace_s": 1.0,
        },
    )


@contextmanager
def gateway_in_thread(settings: Settings) -> Iterator[str]:
    """Its address. Playwright's synchronous API holds the main thread."""
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def serve() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with running(settings) as gateway:
            started.set_result((gateway.url, partial(loop.call_soon_threadsafe, over.set)))
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="gateway")
    thread.start()
    try:
        url, stop = started.result(60)
        try:
            yield url
        finally:
            stop()
    finally:
        thread.join()


def hold_key(page: Page, tenant: str = "alice") -> None:
    """As if it had been typed into the page's dialog."""
    page.add_init_script(f"sessionStorage.setItem('firstword.key', '{KEYS[tenant]}')")


def open_documents(page: Page, address: str = "/documents") -> None:
    page.goto(address)
    expect(page.get_by_role("combobox", name="Vector store")).to_be_visible()


def payload(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def add_files(page: Page, *files: FilePayload) -> None:
    page.locator("#choose-files").set_input_files(list(files))


def new_store(page: Page, name: str) -> str:
    """Its id; it is the chosen one then."""
    page.get_by_role("button", name="New store").click()
    dialog = page.get_by_role("dialog", name="New vector store")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Create").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#store-id")).to_contain_text("vs_")
    return page.locator("#store-id").inner_text()


def row_of(page: Page, name: str) -> Locator:
    rows = page.get_by_role("list", name="Files", exact=True).get_by_role("listitem")
    return rows.filter(has=page.get_by_text(name, exact=True))


def settled(row: Locator, state: str) -> Locator:
    """It has come to this end."""
    expect(row).to_have_attribute("data-state", state, timeout=READ_IN_MS)
    return row


def search(page: Page, query: str) -> Locator:
    """The passages found."""
    page.get_by_label("Words or a question").fill(query)
    page.keyboard.press("Enter")
    expect(page.locator("#search-go")).to_have_text("Search")
    return page.get_by_role("list", name="Search this store").get_by_role("listitem")


def nameless(page: Page) -> list[str]:
    """Roles of the controls that a screen reader would have no name for."""
    nodes: list[dict[str, Any]] = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")[
        "nodes"
    ]
    controls = {
        "button", "textbox", "searchbox", "combobox", "checkbox", "radio", "link", "dialog", "progressbar",
        "list", "region", "search",
    }  # fmt: skip
    seen = [node for node in nodes if not node["ignored"] and node["role"]["value"] in controls]
    assert seen
    return [node["role"]["value"] for node in seen if not node.get("name", {}).get("value", "").strip()]

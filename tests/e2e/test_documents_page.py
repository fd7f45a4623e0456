"""The documents page in headless Chromium, against a gateway with the simulated engine, and its part of the chat page.

`FIRSTWORD_SCREENSHOT=path.png` keeps a picture of the page with files and passages, wide and light, and beside it
one narrow and dark.

Divergences: the browser and the gateway live as long as this module. Playwright's synchronous API keeps an event
loop on the main thread while it runs, so the gateway has a thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from chat_page import ask, blank_page, body_of, chromium, ended, envelope, open_page, script
from documents_page import (
    HOSTILE,
    HOURS,
    KEYS,
    MAX_FILE_BYTES,
    RETURNS,
    add_files,
    gateway_in_thread,
    hold_key,
    nameless,
    new_store,
    open_documents,
    payload,
    row_of,
    search,
    settings_of,
    settled,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, chat_model_path: Path) -> Iterator[str]:
    with gateway_in_thread(settings_of(tmp_path_factory.mktemp("documents"), chat_model_path)) as url:
        yield url


@pytest.fixture(scope="module")
def browser(served: str) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def blank(browser: Browser, served: str) -> Iterator[Page]:
    with blank_page(browser, served) as page:
        yield page


@pytest.fixture
def page(blank: Page) -> Page:
    """The open page, with Alice's key."""
    hold_key(blank)
    open_documents(blank)
    return blank


def keep_screenshots(page: Page) -> None:
    path = os.environ.get("FIRSTWORD_SCREENSHOT")
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    page.set_viewport_size({"width": 400, "height": 1600})
    page.get_by_role("button", name="Dark theme").click()
    page.screenshot(path=str(Path(path).with_stem(Path(path).stem + "-narrow")))


def test_files_are_uploaded_read_in_and_found_whatever_their_names(page: Page) -> None:
    expect(page.locator("#files-empty")).to_contain_text("is found by searching, and is not listed here")
    new_store(page, "Shop <b>bold</b>")
    expect(page.get_by_role("combobox", name="Vector store")).to_contain_text("Shop <b>bold</b>")
    expect(page.locator("#files-empty")).to_contain_text("Add files above")

    add_files(
        page, payload("returns.md", RETURNS), payload(HOSTILE, HOURS), payload("setup.exe", b"MZ\0\0\x90")
    )
    for name in ("returns.md", HOSTILE):
        expect(settled(row_of(page, name), "completed")).to_contain_text(
            re.compile(r"Done.*1 chunk", re.DOTALL)
        )
    expect(page.locator("#status")).to_have_text(re.compile("done", re.IGNORECASE))
    failed = settled(row_of(page, "setup.exe"), "failed")
    expect(failed.locator(".file-note")).to_contain_text(re.compile(r"\w+ \w+"))
    expect(failed.get_by_role("button", name="Try again: setup.exe")).to_be_visible()
    expect(page.locator("#store-figures")).to_contain_text("3 uploaded files")
    expect(page.locator("#store-figures")).to_contain_text("1 failed")
    expect(page.locator("progress:visible")).to_have_count(0)

    page.get_by_role("radio", name="Failed 1").check()
    expect(page.locator(".file")).to_have_count(1)
    page.get_by_role("radio", name="All 3").check()
    expect(page.locator(".file")).to_have_count(3)

    found = search(page, "When can items be returned?")
    first = found.filter(has_text="returns.md").first
    expect(first.locator("mark").filter(has_text="returned")).to_have_count(1)
    expect(first.locator("mark").filter(has_text="item")).to_have_count(1)
    expect(first.locator(".trail").first).to_contain_text("Time limit")
    assert first.get_by_role("term").all_inner_texts() == ["Score", "Meaning", "Words"]
    assert all(
        re.fullmatch(r"-?\d+\.\d+", figure) for figure in first.get_by_role("definition").all_inner_texts()
    )
    expect(found.filter(has_text=HOSTILE)).to_have_count(1)
    keep_screenshots(page)

    assert page.locator("#panels img, #panels b").count() == 0
    assert page.evaluate("window.pwned ?? null") is None


def test_refused_file_is_told_in_its_row_and_a_larger_one_is_not_sent(page: Page) -> None:
    new_store(page, "Refusals")
    add_files(page, payload("large.txt", b"x" * (MAX_FILE_BYTES + 100_000)))
    row = settled(row_of(page, "large.txt"), "failed")
    expect(row).to_contain_text(f"larger than {MAX_FILE_BYTES} bytes")
    uploads: list[str] = []
    page.on(
        "request", lambda request: uploads.append(request.url) if request.url.endswith("/v1/files") else None
    )
    add_files(page, payload("larger.txt", b"x" * (MAX_FILE_BYTES + 200_000)), payload("empty.txt", b""))
    expect(settled(row_of(page, "larger.txt"), "failed")).to_contain_text("It was not sent")
    expect(settled(row_of(page, "empty.txt"), "failed")).to_contain_text("The file is empty.")
    assert uploads == []

    add_files(page, payload("evil\u202egpj.md", RETURNS))
    row = settled(row_of(page, "evil[U+202E]gpj.md"), "failed")
    expect(row).to_contain_text("invisible character")
    row.get_by_role("button", name="Dismiss").click()
    expect(row).to_have_count(0)
    expect(page.locator(".file")).to_have_count(3)
    assert page.evaluate("document.activeElement.closest('#files') !== null"), "focus was lost with the row"


def test_store_is_made_renamed_and_deleted_by_keyboard_alone(page: Page) -> None:
    page.get_by_role("button", name="New store").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("Handbooks")
    page.keyboard.press("Enter")
    store = page.get_by_role("combobox", name="Vector store")
    expect(store.locator("option:checked")).to_have_text("Handbooks")
    expect(page.get_by_role("button", name="New store")).to_be_focused()
    assert page.locator("#store-id").inner_text() in page.url

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("Manuals")  # the old name is selected
    page.keyboard.press("Enter")
    expect(store.locator("option:checked")).to_have_text("Manuals")
    page.reload()
    expect(store.locator("option:checked")).to_have_text("Manuals")

    page.get_by_role("button", name="Delete", exact=True).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Delete “Manuals”?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()  # Enter alone deletes nothing
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Delete", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(store.locator("option:checked")).to_have_text("default")
    expect(store).not_to_contain_text("Manuals")
    expect(page.get_by_role("button", name="Delete", exact=True)).to_be_hidden()


def test_removed_file_is_not_found_and_can_be_added_again(page: Page) -> None:
    new_store(page, "Removals")
    add_files(page, payload("returns.md", RETURNS), payload("hours.md", HOURS))
    for name in ("returns.md", "hours.md"):
        settled(row_of(page, name), "completed")
    row_of(page, "returns.md").get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog", name="Remove “returns.md”?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(row_of(page, "returns.md")).to_have_count(1)
    row_of(page, "returns.md").get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(row_of(page, "returns.md")).to_have_count(0)
    said = page.get_by_role("status").filter(has_text="returns.md was removed.")
    expect(said).to_have_count(1)
    page.wait_for_timeout(1_500)  # what ended before it is told within a second, and not in its place
    expect(said).to_have_count(1)
    expect(search(page, "returned within 45 days")).to_have_count(1)

    page.get_by_text("Uploaded files that are not in this store").click()
    other = page.locator("#others-files .file").filter(has_text="returns.md").first
    other.get_by_role("button", name="Add to this store: returns.md").click()
    settled(row_of(page, "returns.md"), "completed")
    expect(search(page, "returned within 45 days").first).to_contain_text("returns.md")

    row_of(page, "returns.md").get_by_role("button", name="Remove").click()
    dialog.get_by_role("checkbox").check()
    listed = page.locator("#others-files").get_by_text("returns.md")
    n_listed = listed.count()
    dialog.get_by_role("button", name="Remove").click()
    expect(row_of(page, "returns.md")).to_have_count(0)
    expect(listed).to_have_count(n_listed)


def test_progress_is_shown_and_asked_for_only_while_it_can_be_seen(page: Page) -> None:
    store_id = new_store(page, "Progress")
    done = 0
    asked = 0

    def list_files(route: Route) -> None:
        nonlocal asked
        asked += 1
        total = 8
        status = "completed" if done == total else "in_progress"
        progress = {"chunks_done": done, "chunks_total": total} if done < total else None
        file = {
            "id": "file-1",
            "vector_store_id": store_id,
            "status": status,
            "usage_bytes": 10,
            "last_error": None,
        }
        ours = {"filename": "long.pdf", "n_chunks": done, "progress": progress}
        route.fulfill(json={"data": [{**file, "attributes": {}, "firstword": ours}], "has_more": False})

    def get_store(route: Route) -> None:
        counts = {
            "in_progress": int(done < 8),
            "completed": int(done == 8),
            "failed": 0,
            "cancelled": 0,
            "total": 1,
        }
        store = {"id": store_id, "name": "Progress", "status": "completed", "usage_bytes": 10}
        route.fulfill(json={**store, "file_counts": counts})

    page.route(f"**/v1/vector_stores/{store_id}/files?*", list_files)
    page.route(f"**/v1/vector_stores/{store_id}", get_store)
    page.clock.install()
    page.reload()
    row = row_of(page, "long.pdf")
    expect(row).to_contain_text("Indexing 0 of 8 chunks")
    done = 3
    expect(row).to_contain_text("Indexing 3 of 8 chunks")
    assert row.get_by_role("progressbar", name="Progress of long.pdf").evaluate("bar => bar.value") == 3 / 8

    hide = "hidden => { Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden}); document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    page.wait_for_timeout(200)  # one may be on its way
    before = asked
    page.clock.run_for(60_000)
    page.wait_for_timeout(100)
    assert asked == before
    done = 8
    page.evaluate(hide, False)
    expect(row).to_contain_text("Done")
    expect(row).to_contain_text("8 chunks")
    before = asked
    page.clock.run_for(60_000)
    page.wait_for_timeout(100)
    assert asked == before, "it asked on when all was done"


def test_page_asks_for_a_key_and_says_where_it_may_not_write(blank: Page) -> None:
    blank.goto("/documents")
    dialog = blank.get_by_role("dialog", name="This server asks for an API key")
    dialog.get_by_label("API key").fill(KEYS["alice"])
    blank.keyboard.press("Enter")
    expect(blank.get_by_role("combobox", name="Vector store")).to_be_visible()
    add_files(blank, payload("mine.md", RETURNS))
    row = settled(row_of(blank, "mine.md"), "failed")
    expect(row).to_contain_text("may search it and not change it")
    expect(blank.locator("#drop")).to_be_hidden()
    blank.locator("#closed").get_by_role("button", name="New store").click()
    expect(blank.get_by_role("dialog", name="New vector store")).to_be_visible()
    blank.keyboard.press("Escape")
    expect(search(blank, "closed on Sunday").first).to_contain_text("hours.md")


def test_failures_are_told_where_they_arose_and_can_be_tried_again(page: Page) -> None:
    refused = envelope("The index <i>rests</i>.")
    page.route(
        "**/search", lambda route: route.fulfill(status=503, body=refused, content_type="application/json")
    )
    search(page, "anything")
    alert = page.locator("#search-problem").get_by_role("alert")
    expect(alert).to_contain_text("The search failed. The index <i>rests</i>.")
    page.unroute("**/search")
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".hit").first).to_be_visible()
    expect(alert).to_have_count(0)

    page.route("**/v1/files", lambda route: route.abort())
    new_store(page, "Failures")
    add_files(page, payload("returns.md", RETURNS))
    row = settled(row_of(page, "returns.md"), "failed")
    page.unroute("**/v1/files")
    row.get_by_role("button", name="Try again").click()
    settled(row, "completed")

    page.route("**/v1/vector_stores", lambda route: route.fulfill(status=500, body=envelope("No disk.")))
    page.get_by_role("button", name="New store").click()
    dialog = page.get_by_role("dialog", name="New vector store")
    dialog.get_by_label("Name").fill("Another")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("No disk.")
    expect(dialog.get_by_label("Name")).to_have_value("Another")
    page.unroute("**/v1/vector_stores")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog).to_be_hidden()


def test_controls_have_names_and_nothing_overflows_when_narrow(page: Page) -> None:
    new_store(page, "N" * 256)
    add_files(page, payload("w" * 200 + ".md", RETURNS), payload("empty.md", b""))
    settled(row_of(page, "w" * 200 + ".md"), "completed")
    search(page, "item")
    assert nameless(page) == []
    ids = "[...document.querySelectorAll('[id]')].map(node => node.id)"
    assert page.evaluate(f"{ids}.filter((id, at) => {ids}.indexOf(id) !== at)") == []
    page.set_viewport_size({"width": 360, "height": 640})
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.getElementById('main').scrollWidth]"
    )
    assert max(widths) <= 360
    page.get_by_role("button", name="Delete", exact=True).click()
    assert nameless(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Search this store").click()
    expect(page.get_by_label("Words or a question")).to_be_focused()


def test_chat_page_answers_from_the_stores_that_are_chosen(browser: Browser, served: str) -> None:
    with blank_page(browser, served) as page:
        hold_key(page, "bob")  # has no store but `default`
        with page.expect_response("**/v1/vector_stores?*"):
            open_page(page)
        expect(page.locator("#scope")).to_be_hidden()

        page.get_by_role("link", name="Documents").click()
        store_id = new_store(page, "Returns")
        add_files(page, payload("returns.md", RETURNS))
        settled(row_of(page, "returns.md"), "completed")
        page.get_by_role("link", name="Chat").click()
        expect(page.locator("#readiness")).to_have_attribute("data-state", "ready")

        requests = script(page)
        ended(ask(page, "Anything"))
        assert "retrieval" not in body_of(requests[-1])
        page.locator("#scope summary").click()
        page.get_by_label("Returns").check()
        page.get_by_label("default").uncheck()
        page.keyboard.press("Escape")
        expect(page.get_by_label("Returns")).to_be_hidden()
        ended(ask(page, "How long?"))
        assert body_of(requests[-1])["retrieval"] == {"vector_store_ids": [store_id]}
        open_page(page)
        expect(page.locator("#scope")).to_contain_text("Answers from: Returns")
        page.unroute("**/v1/chat/completions")
        turn = ask(page, "Within how many days can an item be returned?")
        expect(turn.locator(".chip-name")).to_have_text(["returns.md"])
        ended(turn)

        page.request.delete(
            f"/v1/vector_stores/{store_id}", headers={"authorization": f"Bearer {KEYS['bob']}"}
        )
        turn = ended(ask(page, "And now?"), "failed")
        expect(turn.locator(".note")).to_contain_text(store_id)
        expect(page.locator("#scope")).to_be_hidden()
        turn.get_by_role("button", name="Retry").click()
        ended(turn)

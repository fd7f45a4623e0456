"""Documents and their model change under a running server, and under a watch."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import stores
from conversations import Talk, asked_about, document, sources
from gateways import MakeSettings, running
from retrieval.embed.hashing import HashingEmbedder
from retrieval.embed.spec import EmbedderSpec
from retrieval.store.sqlite_store import SqliteStore
from server import knowledge as module
from server.knowledge import remember_embedder
from server.settings import PROJECT_ROOT

pytestmark = pytest.mark.anyio
NEW = HashingEmbedder(200)


async def test_a_running_server_takes_the_vectors_of_a_reindex(
    library: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = library()
    async with running(settings) as gateway:
        store, talk = gateway.parts.store, Talk(gateway)
        assert "bicycles.md" in sources(await talk.say(asked_about("bicycles")))
        opened = module.open_embedder
        monkeypatch.setattr(module, "open_embedder", lambda spec: NEW if spec.path == "new" else opened(spec))

        def reindex() -> None:
            other = SqliteStore(store.connections.path)  # another process, as far as the store can tell
            assert other.next_vectors.begin(NEW.identity, NEW.dim)
            keys, texts = other.next_vectors.next_missing(1_000)
            other.next_vectors.put(NEW.identity, keys, NEW.embed(texts))
            remember_embedder(settings, EmbedderSpec("new", "hashing"), NEW)
            assert other.next_vectors.finish(NEW.identity, NEW.dim)
            other.close()

        await asyncio.to_thread(reindex)
        async with asyncio.timeout(30):
            while gateway.parts.retriever._open.embedder.identity != NEW.identity:
                assert "cheese.md" in sources(await Talk(gateway).say(asked_about("cheese"), max_tokens=1))
        async with stores.client_of(gateway) as client:
            store_id = await stores.create(client)
            file_id = await stores.upload(client, "kites.md", document("gliders", "of kites"))
            await client.post(f"{stores.STORES}/{store_id}/files", json={"file_id": file_id})
            counts = await stores.settled(client, store_id)
            assert counts["completed"] == 1
            assert (await stores.found(client, store_id, "gliders"))[0]["filename"] == "kites.md"
        assert "gliders.md" in sources(await Talk(gateway).say(asked_about("gliders")))
        with store.snapshot() as snapshot:
            assert {rows.vectors.shape[1] for rows in snapshot.rows(100)} == {NEW.dim}


def until(reached: Callable[[], object], process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    give_up = time.monotonic() + timeout_s
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_watched_folder_is_followed(tmp_path: Path, chat_model_path: Path, knowledge: Path) -> None:
    environment = os.environ | {
        "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
        "FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing",
        "FIRSTWORD_DATA_DIR": str(tmp_path / "var"),
    }
    command = [sys.executable, "-m", "server.cli", "ingest", "--watch", str(knowledge)]
    process = subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "watching" in line:
                break
        assert "2 added" in said, said
        store = SqliteStore(tmp_path / "var" / "store.sqlite")

        def names() -> set[str]:
            return {held.filename for held in store.documents()}

        assert names() == {"hours.md", "returns.md"}
        (knowledge / "new.md").write_text("# New\n\nA new page.\n")
        until(lambda: "new.md" in names(), process)
        before = store.find(str(knowledge / "hours.md"))
        (knowledge / "hours.md").write_text("# Opening hours\n\nOpen on Sunday.\n")
        (knowledge / "returns.md").unlink()
        until(lambda: names() == {"hours.md", "new.md"}, process)
        until(lambda: store.find(str(knowledge / "hours.md")) != before, process)
        store.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.communicate()

"""Does operations on the store and the index of one folder, as the parts of a server and its commands do."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from crash.model import observe
from crash.operations import FIRST_MODEL, NoEmbedder, Operation, dim_of, embedded, tenant_of
from retrieval.embed.text import chunk_text_for_embedding
from retrieval.errors import SnapshotDamaged
from retrieval.file_types import Attachment, ToAttach
from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice
from retrieval.search.view import View
from retrieval.store import changes
from retrieval.store.backup import backup
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, Rows

CHOICE = IndexChoice(kind="hnsw", merge_above=8, scanned_below=8)
"""A structure of its own even over few chunks, and merges all the time."""
STORE, INDEX, BACKUP = "store.db", "index.bin", "backup.db"

_KEPT_CHANGES = 60
_PRUNED_TO = 10
_NO_CHANGE = Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0), np.float32), ())


class Refused(Exception):
    """What was asked for was not done, and the caller told in an expected way."""


class Worker:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(max_workers=2)
        self._loop = asyncio.Runner()
        self._store: SqliteStore | None = None
        self._view: View | None = None
        self._ids: Mapping[str, str] = {}
        changes.KEPT_CHANGES, changes._SLACK = _KEPT_CHANGES, _KEPT_CHANGES // 4

    @property
    def store(self) -> SqliteStore:
        assert self._store is not None
        return self._store

    def do(self, operation: Operation, ids: Mapping[str, str]) -> Any:
        """What it returns is told with the acknowledgement."""
        self._ids = ids
        other = self._threads.submit(self._act, operation.beside) if operation.beside else None
        try:
            return self._act(operation)
        finally:
            if other:
                other.result()

    def _act(self, operation: Operation) -> Any:
        kind = operation.kind
        store_id = self._ids.get(operation.store, operation.store)
        its_id = self._ids.get(operation.name, "")
        tenant = tenant_of(operation.name)
        match kind:
            case "open":
                self._open()
            case "close":
                self._close()
            case "ingest" | "ingest large" | "update":
                self.store.put(*self._document(operation, store_id))
            case "delete":
                assert self.store.delete(document_id_for(operation.name, store_id))
            case "upload":
                data = "".join(operation.contents).encode()
                return self.store.files.add_file(tenant, operation.name, "assistants", data).file_id
            case "delete file":
                self.store.files.delete_file(tenant, its_id)
            case "create store":
                return self.store.files.create_store(tenant, operation.name).store_id
            case "delete store":
                self.store.files.delete_store(tenant, its_id)
            case "attach":
                wanted = dict(operation.attributes) or None
                files = [ToAttach(its_id, wanted)]
                return self.store.files.attach(tenant, store_id, files, batch=bool(operation.limit))[1]
            case "finish":
                attachment = self._attachment(operation)
                document = self._document(operation, store_id, its_id)
                assert self.store.files.finish(attachment, *document) == (attachment.status == "in_progress")
            case "settle":
                attachment = self._attachment(operation)
                settled = self.store.files.settle(attachment, error_code="invalid_file", error="damaged")
                assert settled == (attachment.status == "in_progress")
            case "cancel":
                batch_id = self._ids[f"batch of {operation.store} {operation.name}"]
                self.store.files.cancel_batch(tenant, store_id, batch_id)
            case "detach":
                self.store.files.detach(tenant, store_id, its_id)
            case "modify" | "prune":
                changes.KEPT_CHANGES = _PRUNED_TO if kind == "prune" else _KEPT_CHANGES
                changes._SLACK = changes.KEPT_CHANGES // 4
                assert self.store.modify(document_id_for(operation.name, store_id), operation.attributes)
            case "checkpoint":
                with self.store.connections.reader() as db:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            case "backup":
                backup(self._folder / STORE, self._folder / BACKUP)
            case "snapshot":
                return self._loop.run(self._save())
            case "compaction":
                return self._loop.run(self._compact())
            case "save as":
                self._loop.run(self._save_as(IndexChoice(operation.name, merge_above=8)))
            case "view":
                return self._loop.run(self._viewed(IndexChoice(operation.name, merge_above=8)))
            case "reindex begin":
                self.store.next_vectors.begin(operation.name, dim_of(operation.name))
            case "reindex put":
                keys, texts = self.store.next_vectors.next_missing(operation.limit)
                self.store.next_vectors.put(operation.name, keys, embedded(tuple(texts), operation.name))
            case "reindex finish":
                if self.store.next_vectors.finish(operation.name, dim_of(operation.name)):
                    self.store.claim_embedder(operation.name, dim_of(operation.name))
            case "observe":
                return observe(self.store)
            case "arm":
                arm = ctypes.CDLL(None).fault_arm
                arm(str(self._folder).encode(), operation.limit, operation.name.encode())
            case "disarm":
                return _disarmed()
            case _:
                raise ValueError(kind)
        return None

    def _open(self) -> None:
        self._close()
        self._store = SqliteStore(self._folder / STORE)
        held = self._store.embedder() or (FIRST_MODEL, dim_of(FIRST_MODEL))
        self._store.claim_embedder(*held)

    def _close(self) -> None:
        self._drop_view()
        if self._store is not None:
            self._store.close()
        self._store = None

    def _document(
        self, operation: Operation, store_id: str, file_id: str = ""
    ) -> tuple[Document, list[Chunk], Any]:
        title = operation.name
        chunks = [
            Chunk(place, (f"Part {place // 4}",), text, len(text.split()))
            for place, text in enumerate(operation.contents)
        ]
        document = Document(
            document_id_for(operation.name, store_id), operation.name, f"{title}.txt", title, "sha", 1, len(chunks),
            0.0, store_id, file_id, operation.attributes,
        )  # fmt: skip
        model = self.store.embedder()
        assert model is not None
        return (
            document,
            chunks,
            embedded(tuple(chunk_text_for_embedding(title, each) for each in chunks), model[0]),
        )

    def _attachment(self, operation: Operation) -> Attachment:
        store_id, file_id = self._ids[operation.store], self._ids[operation.name]
        return self.store.files.attachment(tenant_of(operation.name), store_id, file_id)

    async def _save(self) -> tuple[int, int]:
        view = await self._followed()
        view._unsaved += 1
        if not await view.save(at_least=0):
            raise Refused("the index was not saved")
        return view.version, view.vectors._dim

    async def _compact(self) -> tuple[int, int]:
        """Every row dead and there again: saved while the merge is under way, and once more after it."""
        view = await self._followed()
        with self.store.snapshot() as snapshot:
            rows = list(snapshot.rows(1_000))
        if rows:
            gone = np.concatenate([part.keys for part in rows]).tolist()
            nothing = Rows(_NO_CHANGE.keys, _NO_CHANGE.documents, rows[0].vectors[:0], ())
            await view.vectors.change(gone, nothing)
            for part in rows:
                await view.vectors.change([], part)
        await self._save()
        await view.vectors.settled()
        return await self._save()

    async def _save_as(self, choice: IndexChoice) -> None:
        """With a structure of that kind, and with dead rows."""
        with self.store.snapshot() as snapshot:
            (rows,) = snapshot.rows(1_000)
            version = snapshot.version
        index = FaissIndex(rows.vectors.shape[1], choice)
        try:
            await index.replace([rows])
            await index.settled()
            n = len(rows.keys) // 8
            back = Rows(rows.keys[:n], rows.documents[:n], rows.vectors[:n], rows.texts[:n])
            await index.change(back.keys.tolist(), back)
            assert index.kind == choice.kind
            await index.save(self._folder / INDEX, self.store.identity(), version)
        finally:
            index.close()

    async def _viewed(self, choice: IndexChoice) -> tuple[str, list[tuple[int, float]]]:
        """What became of the snapshot; and all that a view built with it finds for the first chunk's vector."""
        with self.store.snapshot() as snapshot:
            query = next(iter(snapshot.rows(1))).vectors
        index = FaissIndex(query.shape[1], choice)
        try:
            taken = (
                "not taken"
                if await index.load(self._folder / INDEX, self.store.identity()) is None
                else "taken"
            )
        except SnapshotDamaged:
            taken = "damaged"
        finally:
            index.close()
        view = View(self.store, FaissIndex(query.shape[1], choice), None, self._threads, self._folder / INDEX)
        try:
            model = self.store.embedder()
            assert model is not None
            await view.build(NoEmbedder(model[0]))
            return taken, (await view.vectors.search(query, 10_000))[0]
        finally:
            view.close()

    async def _followed(self) -> View:
        model = self.store.embedder()
        assert model is not None
        if self._view is not None:
            new = self.store.changes(self._view.version)
            if new is not None:
                await self._view.apply(new)
                return self._view
            self._drop_view()
        index = FaissIndex(dim_of(model[0]), CHOICE)
        self._view = View(self.store, index, None, self._threads, self._folder / INDEX)
        await self._view.build(NoEmbedder(model[0]))
        return self._view

    def _drop_view(self) -> None:
        if self._view is not None:
            self._view.close()
        self._view = None


def _disarmed() -> tuple[int, str]:
    library = ctypes.CDLL(None)
    library.fault_trace.restype = ctypes.c_char_p
    struck: int = library.fault_disarm()
    return struck, library.fault_trace().decode()

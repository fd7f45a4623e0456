"""What a store should hold, after which operations; and what it does hold, read through its own interface."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crash.operations import FIRST_MODEL, Operation, embedded, tenant_of
from retrieval.embed.text import chunk_text_for_embedding
from retrieval.file_types import Page
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import DEFAULT_STORE, Chunk

_ALL = Page(limit=10_000)
Place = tuple[str, str]
"""Store and source, or store and file."""


@dataclass(frozen=True, slots=True)
class Held:
    """A document."""

    contents: tuple[str, ...]
    """SHA-256 of each chunk's text, in reading order."""
    attributes: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    status: str
    attributes: str
    n_chunks: int = 0


@dataclass(frozen=True, slots=True)
class State:
    model: str = FIRST_MODEL
    next_model: str = ""
    gathered: frozenset[int] = frozenset()
    """Keys of the chunks that have a vector of the next model; they go as their chunks go."""
    stores: frozenset[str] = frozenset({DEFAULT_STORE})
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each."""
    attached: Mapping[Place, Attached] = field(default_factory=dict)
    documents: Mapping[Place, Held] = field(default_factory=dict)

    @property
    def n_chunks(self) -> int:
        return sum(len(held.contents) for held in self.documents.values())

    @property
    def n_missing(self) -> int:
        return self.n_chunks - len(self.gathered)


def digest(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def written(attributes: Mapping[str, Any]) -> str:
    return json.dumps(dict(attributes), sort_keys=True)


def applied(state: State, operation: Operation) -> State:
    """The state after an operation that was acknowledged. What `gathered` becomes, only the worker can tell."""
    if operation.beside is not None:
        state = applied(state, operation.beside)
    change = _CHANGES.get(operation.kind)
    return change(state, operation) if change else state


def _put(state: State, operation: Operation) -> State:
    contents = tuple(map(digest, operation.contents))
    held = Held(contents, written(operation.attributes))
    return replace(state, documents={**state.documents, (operation.store, operation.name): held})


def _delete(state: State, operation: Operation) -> State:
    return _without(state, (operation.store, operation.name))


def _without(state: State, *places: Place) -> State:
    return replace(
        state,
        documents={place: held for place, held in state.documents.items() if place not in places},
        attached={place: held for place, held in state.attached.items() if place not in places},
    )


def _upload(state: State, operation: Operation) -> State:
    return replace(state, files={**state.files, operation.name: digest("".join(operation.contents))})


def _delete_file(state: State, operation: Operation) -> State:
    state = _without(state, *((store, operation.name) for store in state.stores))
    return replace(state, files={name: sha for name, sha in state.files.items() if name != operation.name})


def _create_store(state: State, operation: Operation) -> State:
    return replace(state, stores=state.stores | {operation.name})


def _delete_store(state: State, operation: Operation) -> State:
    gone = operation.name
    state = _without(state, *(place for place in (*state.documents, *state.attached) if place[0] == gone))
    return replace(state, stores=state.stores - {gone})


def _attach(state: State, operation: Operation) -> State:
    place = (operation.store, operation.name)
    before = state.attached.get(place, Attached("", "{}"))
    attributes = written(operation.attributes) if operation.attributes else before.attributes
    fresh = Attached("in_progress", attributes, before.n_chunks)
    return replace(state, attached={**state.attached, place: fresh})


def _finish(state: State, operation: Operation) -> State:
    place = (operation.store, operation.name)
    before = state.attached.get(place)
    if before is None or before.status != "in_progress":
        return state
    contents = tuple(map(digest, operation.contents))
    held = Held(contents, before.attributes, operation.name)
    done = Attached("completed", before.attributes, len(contents))
    return replace(
        state, documents={**state.documents, place: held}, attached={**state.attached, place: done}
    )


def _ended(state: State, operation: Operation, status: str) -> State:
    place = (operation.store, operation.name)
    before = state.attached.get(place)
    if before is None or before.status != "in_progress":
        return state
    return replace(state, attached={**state.attached, place: replace(before, status=status)})


def _modify(state: State, operation: Operation) -> State:
    place, attributes = (operation.store, operation.name), written(operation.attributes)
    documents, attached = dict(state.documents), dict(state.attached)
    if place in documents:
        documents[place] = replace(documents[place], attributes=attributes)
        if place in attached:
            attached[place] = replace(attached[place], attributes=attributes)
    return replace(state, documents=documents, attached=attached)


def _begin(state: State, operation: Operation) -> State:
    if operation.name == state.next_model:
        return state
    return replace(state, next_model=operation.name, gathered=frozenset())


def _swap(state: State, operation: Operation) -> State:
    if state.n_missing:
        return state
    return replace(state, model=state.next_model, next_model="", gathered=frozenset())


_CHANGES = {
    "ingest": _put,
    "ingest large": _put,
    "update": _put,
    "delete": _delete,
    "upload": _upload,
    "delete file": _delete_file,
    "create store": _create_store,
    "delete store": _delete_store,
    "attach": _attach,
    "finish": _finish,
    "settle": lambda state, operation: _ended(state, operation, "failed"),
    "cancel": lambda state, operation: _ended(state, operation, "cancelled"),
    "detach": _delete,
    "modify": _modify,
    "prune": _modify,
    "reindex begin": _begin,
    "reindex finish": _swap,
}


@dataclass(frozen=True, slots=True)
class Observed:
    state: State
    ids: Mapping[str, str]
    """Of the stores, files and batches, by name."""
    keys: frozenset[int]
    """Of the chunks."""


def observe(store: SqliteStore) -> Observed:
    """Reads everything; asserts that documents agree with their chunks, vectors and files with what they are of."""
    ids, files, attached = {DEFAULT_STORE: DEFAULT_STORE}, {}, {}
    for tenant in ("a", "b"):
        ids |= {each.name: each.store_id for each in store.files.stores(tenant, _ALL)[0]}
        for file in store.files.files(tenant, _ALL)[0]:
            ids[file.filename] = file.file_id
            files[file.filename] = digest(store.files.file_data(tenant, file.file_id))
            assert files[file.filename] == file.sha256
    names = {store_id: name for name, store_id in ids.items()}
    stores = frozenset(name for name in ids if name not in files)
    for name in stores:
        for each in store.files.attachments(tenant_of(name), ids[name], _ALL)[0]:
            place = (name, each.filename)
            attached[place] = Attached(each.status, written(each.attributes), each.n_chunks)
            ids[f"batch of {name} {each.filename}"] = each.batch_id
    bound, under_way = store.embedder(), store.next_vectors.under_way()
    model = bound[0] if bound else FIRST_MODEL
    documents = {}
    for document in store.documents():
        chunks = store.chunks(document.document_id)
        assert [chunk.ordinal for chunk in chunks] == list(range(document.n_chunks)), document
        contents = tuple(digest(chunk.text) for chunk in chunks)
        place = (names[document.store_id], document.source)
        documents[place] = Held(contents, written(document.attributes), names.get(document.file_id, ""))
    keys = _checked_vectors(store, model)
    next_model = under_way[0] if under_way else ""
    gathered = _checked_gathered(store, next_model)
    assert gathered <= keys
    return Observed(State(model, next_model, gathered, stores, files, attached, documents), ids, keys)


def _checked_vectors(store: SqliteStore, model: str) -> frozenset[int]:
    keys: list[int] = []
    with store.snapshot() as snapshot:
        for rows in snapshot.rows(1_000):
            assert np.array_equal(rows.vectors, embedded(rows.texts, model)), (
                "a vector of another text or model"
            )
            keys += rows.keys.tolist()
        assert len(keys) == snapshot.n_chunks
    return frozenset(keys)


def _checked_gathered(store: SqliteStore, model: str) -> frozenset[int]:
    with store.connections.reading() as db:
        rows = db.execute(
            "SELECT key, title, heading_path, text, vectors_next.vector "
            "FROM vectors_next JOIN chunks USING (key) JOIN documents USING (number)"
        ).fetchall()
        n = db.execute("SELECT count(*) FROM vectors_next").fetchone()[0]
    assert n == len(rows), "new vectors of chunks that are not there"
    for _, title, path, text, vector in rows:
        expected = embedded((chunk_text_for_embedding(title, _chunk(path, text)),), model)
        assert vector == expected.astype("<f4").tobytes()
    return frozenset(row[0] for row in rows)


def _chunk(path: str, text: str) -> Chunk:
    return Chunk(0, tuple(json.loads(path)), text, 0)

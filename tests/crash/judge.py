"""Opens what a worker left behind and holds it against what was acknowledged."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crash.model import Observed, State, observe
from crash.operations import FIRST_MODEL, NoEmbedder, dim_of
from crash.worker import BACKUP, CHOICE, INDEX, STORE
from retrieval.errors import SnapshotDamaged
from retrieval.index.faiss_index import FaissIndex
from retrieval.search.view import View
from retrieval.store.integrity import check
from retrieval.store.sqlite_store import SqliteStore
from retrieval.types import Snapshot

Row = tuple[int, str, bytes]
"""Document, text, vector."""


@dataclass
class Follower:
    """A view in the simplest form: all rows and entries, kept up to date by the store's changes alone."""

    version: int = -1
    rows: dict[int, Row] = field(default_factory=dict)
    entries: dict[int, object] = field(default_factory=dict)
    n_followed: int = 0
    n_rebuilt: int = 0

    def build(self, snapshot: Snapshot) -> Follower:
        self.rows, self.entries = {}, {each.number: each for each in snapshot.entries()}
        for rows in snapshot.rows(500):
            self._add(rows.keys.tolist(), rows.documents.tolist(), rows.texts, rows.vectors)
        self.version = snapshot.version
        return self

    def follow(self, store: SqliteStore) -> None:
        with store.snapshot() as snapshot:
            changes = snapshot.changes(self.version)
            if changes is None:
                self.n_rebuilt += 1
                self.build(snapshot)
                return
        self.n_followed += 1
        for number in changes.gone_documents:
            self.entries.pop(number, None)
        self.entries |= {each.number: each for each in changes.entries}
        for key in changes.gone_keys:
            self.rows.pop(key, None)
        added = changes.added
        self._add(added.keys.tolist(), added.documents.tolist(), added.texts, added.vectors)
        self.version = changes.version

    def _add(self, keys: list[int], documents: list[int], texts: Sequence[str], vectors: np.ndarray) -> None:
        for place, key in enumerate(keys):
            self.rows[key] = (documents[place], texts[place], vectors[place].tobytes())

    def require_same(self, other: Follower) -> None:
        assert self.version == other.version
        assert self.rows == other.rows, "a view that followed the changes is not what one built anew is"
        assert self.entries == other.entries


@dataclass
class Verdict:
    observed: Observed
    candidate: int
    """Which of the states that it could be in."""
    snapshot: tuple[int, int] | None
    """Version and dimensions of the index's snapshot."""


def judged(folder: Path, candidates: Sequence[State], follower: Follower, n_new: int = 0) -> Verdict:
    """Opens the store as a server would; asserts everything. `n_new`: vectors that a reindex may have gathered."""
    store = SqliteStore(folder / STORE)
    try:
        observed = observe(store)
        assert check(store.connections) == []
        candidate = which(observed, candidates, n_new)
        follower.follow(store)
        with store.snapshot() as snapshot:
            fresh = Follower().build(snapshot)
        follower.require_same(fresh)
        model = (store.embedder() or (FIRST_MODEL, 0))[0]
        snapshot_told = asyncio.run(_view(store, folder / INDEX, model, fresh))
    finally:
        store.close()
    return Verdict(observed, candidate, snapshot_told)


def which(observed: Observed, candidates: Sequence[State], n_new: int) -> int:
    """The store is in one of these states, the whole of it."""
    state = observed.state
    for number, candidate in enumerate(candidates):
        expected = candidate.gathered & observed.keys
        extra = len(state.gathered) - len(expected)
        if replace(candidate, gathered=state.gathered) == state and expected <= state.gathered:
            if extra in (0, n_new):
                return number
            raise AssertionError(f"{extra} new vectors gathered, of {n_new} that were put at once")
    told = "\n".join(_difference(candidate, state) for candidate in candidates)
    raise AssertionError(f"the store is in no state that it may be in: {told}")


def _difference(expected: State, found: State) -> str:
    told = []
    for name in State.__slots__:
        one, other = getattr(expected, name), getattr(found, name)
        if name != "gathered" and one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                keys = {*one, *other}
                one, other = (
                    {key: each.get(key) for key in keys if one.get(key) != other.get(key)}
                    for each in (one, other)
                )
            told.append(f"{name}: expected {one!r:.600}, found {other!r:.600}")
    return "; ".join(told) or "the gathered vectors differ"


async def _view(store: SqliteStore, path: Path, model: str, fresh: Follower) -> tuple[int, int] | None:
    """A server's view of the store is right, whatever the snapshot is."""
    dim = dim_of(model)
    told = await loaded(path, store.identity(), dim)
    with ThreadPoolExecutor(max_workers=1) as reading:
        view = View(store, FaissIndex(dim, CHOICE), None, reading, path)
        try:
            await view.build(NoEmbedder(model))
            await require_content(view.vectors, fresh)
        finally:
            view.close()
    return (told, dim) if told is not None else None


async def loaded(path: Path, identity: str, dim: int) -> int | None:
    index = FaissIndex(dim, CHOICE)
    try:
        return await index.load(path, identity)
    except SnapshotDamaged as error:
        raise AssertionError("a process that was killed left a damaged snapshot") from error
    finally:
        index.close()


async def require_content(index: FaissIndex, fresh: Follower) -> None:
    """That it holds these rows and no others, found as an exact search finds them."""
    assert len(index) == len(fresh.rows)
    if not fresh.rows:
        return
    keys = sorted(fresh.rows)
    vectors = np.array([np.frombuffer(fresh.rows[key][2], np.float32) for key in keys])
    query = vectors[:1]
    found = (await index.search(query, len(keys)))[0]
    expected = dict(zip(keys, (vectors @ query[0]).tolist(), strict=True))
    assert {key for key, _ in found} == set(keys)
    assert all(abs(score - expected[key]) < 1e-5 for key, score in found)


def judged_backup(folder: Path, candidates: Sequence[State]) -> int | None:
    """The state that the backup holds; None where there is none. It is looked at elsewhere."""
    if not (folder / BACKUP).exists():
        return None
    apart = folder / "looked at"
    apart.mkdir()
    try:
        shutil.copy(folder / BACKUP, apart / STORE)
        store = SqliteStore(apart / STORE)
        try:
            assert check(store.connections) == []
            observed = observe(store)
        finally:
            store.close()
    finally:
        shutil.rmtree(apart)
    observed = replace(observed, state=replace(observed.state, gathered=frozenset()))
    return which(observed, [replace(each, gathered=frozenset()) for each in candidates], 0)

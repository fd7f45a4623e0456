"""Damaged snapshot files of an index: told as such, never taken for good, and the store serves all the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from crash.conftest import Tell
from crash.judge import Follower
from crash.nursery import Child, Nursery
from crash.operations import Operation
from crash.size import TIMEOUT_S, chosen, named, pick, random_of
from crash.worker import INDEX, STORE
from retrieval.store.sqlite_store import SqliteStore

pytestmark = pytest.mark.timeout(TIMEOUT_S)

KINDS = ("flat", "hnsw", "pq", "ivf")
DAMAGES = {
    "a bit flipped": pick(60, 1_000),
    "cut": pick(4, 100),
    "parts swapped": pick(4, 100),
    "64 bytes zeroed": pick(4, 100),
    "bytes added": pick(4, 100),
}
_HEADER_BYTES = 4_096


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_snapshot_is_told_and_the_store_serves(
    tmp_path: Path, workers: Nursery, tell: Tell, kind: str
) -> None:
    with workers.child(tmp_path) as child:
        expected, whole = prepared(tmp_path, child, kind)
        require_view(child, kind, "taken", expected)
        met: Counter[str] = Counter()
        cases = [damage for damage, n in DAMAGES.items() for _ in range(n // len(KINDS))]
        for number, damage in chosen(kind, cases):
            with named(kind, number):
                (tmp_path / INDEX).write_bytes(damaged(whole, damage, random_of(kind, number)))
                require_view(child, kind, "damaged", expected)
                met[damage] += 1
        (tmp_path / INDEX).write_bytes(whole)
        require_view(child, kind, "taken", expected)
    rows: list[Sequence[object]] = [("damage", "files", "refused with SnapshotDamaged, built from the store")]
    tell(
        f"damaged snapshots of kind {kind}, {len(whole)} bytes",
        [*rows, *((*one, one[1]) for one in met.items())],
    )


def prepared(folder: Path, child: Child, kind: str) -> tuple[dict[int, float], bytes]:
    """The score of each chunk for the vector of the first, computed here; and an undamaged snapshot."""
    child.ask(Operation("open"), {})
    for number in range(12):
        texts = tuple(f"{number} {part}" for part in range(12))
        child.ask(Operation("ingest", name=f"d-{number}", texts=texts), {})
    child.ask(Operation("delete", name="d-3"), {})
    child.ask(Operation("save as", name=kind), {})
    store = SqliteStore(folder / STORE)
    with store.snapshot() as snapshot:
        rows = Follower().build(snapshot).rows
    store.close()
    vectors = {key: np.frombuffer(vector, np.float32) for key, (_, _, vector) in rows.items()}
    first = vectors[min(vectors)]
    return {key: float(vector @ first) for key, vector in vectors.items()}, (folder / INDEX).read_bytes()


def require_view(child: Child, kind: str, taken: str, expected: dict[int, float]) -> None:
    """A worker that crashed does not answer."""
    told, found = child.ask(Operation("view", name=kind), {})
    assert told == taken
    assert {key for key, _ in found} == set(expected)
    assert all(abs(score - expected[key]) < 1e-5 for key, score in found)


def damaged(whole: bytes, damage: str, random: Random) -> bytes:
    """Other bytes than the whole ones."""
    while True:
        bytes_ = _damaged(whole, damage, random)
        if bytes_ != whole:
            return bytes_


def _damaged(whole: bytes, damage: str, random: Random) -> bytes:
    at = random.randrange(len(whole))
    match damage:
        case "a bit flipped":
            # Half of them in the header: a small part of the file, which steers how the rest is read.
            at = random.randrange(random.choice([_HEADER_BYTES, len(whole)]))
            return whole[:at] + bytes([whole[at] ^ 1 << random.randrange(8)]) + whole[at + 1 :]
        case "cut":
            return whole[: random.choice([0, 1, _HEADER_BYTES, at, len(whole) - 1])]
        case "64 bytes zeroed":
            return whole[:at] + bytes(len(whole[at : at + 64])) + whole[at + 64 :]
        case "bytes added":
            return whole[:at] + random.randbytes(random.randint(1, 64)) + whole[at:]
        case "parts swapped":
            parts = [whole[first:last] for first, last in _parts(whole)]
            one, other = random.sample(range(len(parts)), 2)
            parts[one], parts[other] = parts[other], parts[one]
            return b"".join(parts)
    raise ValueError(damage)


def _parts(whole: bytes) -> list[tuple[int, int]]:
    """Where the header and the sections begin and end."""
    n = int.from_bytes(whole[8:12], "little")
    spans = [(0, _HEADER_BYTES)]
    for _, n_bytes, _ in json.loads(whole[12 : 12 + n])["sections"]:
        spans.append((spans[-1][1], spans[-1][1] + n_bytes))
    return spans

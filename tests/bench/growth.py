"""`python -m bench.growth DATA`: the index from a thousand chunks to a million.

At each size, for two contents: *text* (passages of DATA cut into chunks and embedded once; beyond their number,
mixtures of two of them with noise) and *clustered* (synthetic). Queries are the data's questions, or drawn from the
clusters. Measured: the build in the background, resident memory, the snapshot's size, writing and loading, search
latency and CPU time through the index's own queue, recall@5 against an exact scan, the same within a tenth of the
documents, and a change while searches go on. Each size runs in a process of its own; a million holds about 4 GB.
The embedding of the text is kept in `var/bench/growth`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.conditions import conditions
from retrieval.embed.spec import SentenceTransformerEmbedder
from retrieval.index.faiss_index import FaissIndex
from retrieval.index.kind import IndexChoice
from retrieval.types import Rows, Selection, Vectors
from server.settings import PROJECT_ROOT

SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000)
CONTENTS = ("text", "clustered")
DIM = 384
N_QUERIES = 300
TOP_K = 5
_FOLDER = PROJECT_ROOT / "var" / "bench" / "growth"
_PLOT_PYTHON = PROJECT_ROOT / "var" / "bench" / "plot" / "bin" / "python"
_WORDS, _STEP = 60, 40
_AT_ONCE = 20_000


def main() -> None:
    options = _options()
    if options.only:
        content, size, kind = options.only.split(",")
        print(json.dumps(asyncio.run(measure(options.data, options.model, content, int(size), kind))))
        return
    _FOLDER.mkdir(parents=True, exist_ok=True)
    embedded(options.data, options.model)
    rows = []
    for size in (size for size in SIZES if size <= options.largest):
        for content in options.contents.split(","):
            for kind in options.kinds.split(","):
                rows.append(_in_a_process(options, content, size, kind))
                print(_line(rows[-1]), flush=True)
    figures = _FOLDER / "growth.json"
    figures.write_text(json.dumps({"conditions": conditions(), "rows": rows}, indent=1), encoding="utf-8")
    print(figures)
    if _PLOT_PYTHON.exists():
        script = Path(__file__).with_name("growth_plot.py")
        subprocess.run(
            [_PLOT_PYTHON, script, figures, _FOLDER / "growth.svg", _FOLDER / "growth.png"], check=True
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder with passages.jsonl and conversations.jsonl")
    parser.add_argument("--model", type=Path, default=PROJECT_ROOT / "var" / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--contents", default=",".join(CONTENTS))
    parser.add_argument("--kinds", default="auto", help="kinds of index, or auto; separated by commas")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options: argparse.Namespace = parser.parse_args()
    return options


def _in_a_process(options: argparse.Namespace, content: str, size: int, kind: str) -> dict[str, Any]:
    """Its memory is its own."""
    command = [sys.executable, "-m", "bench.growth", str(options.data), "--model", str(options.model)]
    done = subprocess.run(
        [*command, "--only", f"{content},{size},{kind}"], check=True, stdout=subprocess.PIPE, cwd=PROJECT_ROOT
    )
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


async def measure(data: Path, model: Path, content: str, size: int, kind: str) -> dict[str, Any]:
    vectors, queries = drawn(data, model, content, size)
    index = FaissIndex(DIM, IndexChoice(kind))
    snapshot = _FOLDER / f"snapshot-{os.getpid()}"
    keys = np.arange(size)
    before = _resident_mib()
    began = time.perf_counter()
    await index.replace([Rows(keys, keys // 10, vectors, ())])
    replaced = time.perf_counter()
    await index.settled()
    row: dict[str, Any] = {
        "content": content,
        "n": size,
        "kind": index.kind,
        "copy_s": replaced - began,
        "build_s": time.perf_counter() - replaced,
        "memory_mib": _resident_mib() - before,
    }
    try:
        row |= await _searched(index, vectors, queries, None, "")
        documents = np.random.default_rng(5).random(size // 10 + 1) < 0.1
        row |= await _searched(index, vectors, queries, Selection(("a",), documents, False), "tenth_")
        row |= await _changed(index, vectors, queries)
        row |= await _saved(index, snapshot, kind)
    finally:
        snapshot.unlink(missing_ok=True)
        index.close()
    return row


async def _searched(
    index: FaissIndex, vectors: Vectors, queries: Vectors, selection: Selection | None, name: str
) -> dict[str, float]:
    exact = _exact(vectors, queries, selection)
    await index.search(queries[:1], TOP_K, selection)
    taken, n_shared, cpu_s = [], 0, 0.0
    for at, best in enumerate(exact):
        cpu, began = time.process_time(), time.perf_counter()
        (hits,) = await index.search(queries[at : at + 1], TOP_K, selection)
        taken.append((time.perf_counter() - began) * 1e3)
        cpu_s += time.process_time() - cpu
        n_shared += len({key for key, _ in hits} & best)
    return {
        f"{name}p50_ms": float(np.percentile(taken, 50)),
        f"{name}p99_ms": float(np.percentile(taken, 99)),
        f"{name}cpu_ms": cpu_s / len(exact) * 1e3,
        f"{name}recall_at_5": n_shared / sum(map(len, exact)),
    }


def _exact(vectors: Vectors, queries: Vectors, selection: Selection | None) -> list[set[int]]:
    """The five nearest, block by block."""
    found = [np.empty((0, 2)) for _ in queries]
    for first in range(0, len(vectors), _AT_ONCE):
        scores = queries @ vectors[first : first + _AT_ONCE].T
        if selection is not None:
            scores[:, ~selection.documents[np.arange(first, first + scores.shape[1]) // 10]] = -np.inf
        best = np.argpartition(-scores, TOP_K, axis=1)[:, :TOP_K]
        for at, columns in enumerate(best):
            both = np.concatenate((found[at], np.stack((scores[at, columns], columns + first), axis=1)))
            found[at] = both[np.argsort(-both[:, 0])[:TOP_K]]
    return [set(pairs[np.isfinite(pairs[:, 0]), 1].astype(int).tolist()) for pairs in found]


async def _changed(index: FaissIndex, vectors: Vectors, queries: Vectors) -> dict[str, float]:
    """A document of 20 chunks comes, another goes, a hundred times, beside searches."""
    taken = []
    for n in range(100):
        keys = np.arange(20) + len(vectors) + 20 * n
        rows = Rows(keys, np.full(20, len(vectors) + n), vectors[20 * n : 20 * n + 20][: len(keys)], ())
        if len(rows.vectors) < len(keys):
            break
        began = time.perf_counter()
        await index.change(list(range(20 * n, 20 * n + 10)), rows)
        taken.append((time.perf_counter() - began) * 1e3)
        await index.search(queries[:1], TOP_K)
    return {"change_p50_ms": float(np.median(taken)), "change_max_ms": max(taken)}


async def _saved(index: FaissIndex, path: Path, kind: str) -> dict[str, float]:
    await index.settled()
    began = time.perf_counter()
    await index.save(path, "store", 1)
    saved = time.perf_counter()
    index.close()
    other = FaissIndex(DIM, IndexChoice(kind))
    loading = time.perf_counter()
    assert await other.load(path, "store") == 1
    loaded = time.perf_counter()
    other.close()
    return {
        "snapshot_mib": path.stat().st_size / 2**20,
        "save_s": saved - began,
        "load_s": loaded - loading,
    }


def embedded(data: Path, model: Path) -> tuple[Vectors, Vectors]:
    """The chunks and the questions, embedded once and kept."""
    files = [_FOLDER / f"{name}.npy" for name in ("chunks", "questions")]
    if not all(file.exists() for file in files):
        embedder = SentenceTransformerEmbedder(str(model))
        passages, conversations = (
            [json.loads(line) for line in (data / name).read_text(encoding="utf-8").splitlines()]
            for name in ("passages.jsonl", "conversations.jsonl")
        )
        chunks = []
        for passage in passages:
            words = passage["text"].split()
            chunks += [" ".join(words[at : at + _WORDS]) for at in range(0, len(words), _STEP)]
        questions = sorted({turn["user"] for talk in conversations for turn in talk["turns"] if turn["user"]})
        for file, texts in zip(files, (chunks, questions), strict=True):
            np.save(file, embedder.embed(texts))
    return np.load(files[0]), np.load(files[1])


def drawn(data: Path, model: Path, content: str, size: int) -> tuple[Vectors, Vectors]:
    """`(size, 384)` vectors and `(300, 384)` queries, the same in every run."""
    rng = np.random.default_rng(size)
    vectors = np.empty((size, DIM), dtype=np.float32)
    if content == "text":
        chunks, questions = embedded(data, model)
        queries = questions[rng.permutation(len(questions))[:N_QUERIES]]
        n_real = min(size, len(chunks))
        vectors[:n_real] = chunks[rng.permutation(len(chunks))[:n_real]]
        for first in range(n_real, size, _AT_ONCE):
            part = vectors[first : first + _AT_ONCE]
            one, other = (chunks[rng.integers(len(chunks), size=len(part))] for _ in range(2))
            share = rng.uniform(0.6, 0.95, size=(len(part), 1)).astype(np.float32)
            part[:] = _unit(share * one + (1 - share) * other + 0.4 * _noise(rng, len(part)))
        return vectors, queries
    n_subjects = max(10, size // 50)
    centres = _unit(rng.standard_normal((n_subjects, DIM), dtype=np.float32))
    widths = rng.standard_normal((64, DIM), dtype=np.float32) / 8

    def around(n: int) -> Vectors:
        shape = _unit(rng.standard_normal((n, 64), dtype=np.float32)) @ widths
        return _unit(centres[rng.integers(n_subjects, size=n)] + 0.8 * _unit(shape) + 0.4 * _noise(rng, n))

    for first in range(0, size, _AT_ONCE):
        vectors[first : first + _AT_ONCE] = around(min(_AT_ONCE, size - first))
    return vectors, around(N_QUERIES)


def _noise(rng: np.random.Generator, n: int) -> Vectors:
    return rng.standard_normal((n, DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / lengths).astype(np.float32)
    return unit


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _line(row: dict[str, Any]) -> str:
    values = (
        f"{name} {value:,.3g}" if isinstance(value, float) else str(value) for name, value in row.items()
    )
    return " | ".join(values)


if __name__ == "__main__":
    main()

"""`python -m bench.hybrid DATA`: a turn's whole retrieval at 100,000 chunks against torch embedding and a flat search.

DATA is a folder with `passages.jsonl` (`text`) and `conversations.jsonl` (`turns` with `user` and `agent`). Its
passages are cut into chunks and embedded; the rest of the chunks are made of their sentences and near their vectors,
so that words and meanings are as frequent as in the real ones. Each query goes both ways, one after the other in
turn: the product's (query embedding, both indexes, fusion, passages, assembly of the prompt), and the plain one
(sentence-transformers on torch, `IndexFlatIP`). About four minutes, most of it to fill the store.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.conditions import conditions
from bench.process import BENCH_DIR
from bench.report import Lines, Sheet, keep, open_console, show
from retrieval.embed.spec import SentenceTransformerEmbedder
from retrieval.ingest.chunk import chunk
from retrieval.search.retriever import Retriever
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import Chunk, Document, Embedder, ParsedDocument, Query, Scope, Section, Vectors
from server.context.assemble import Assembler
from server.context.conversation import Conversation, read_conversation
from server.context.joints import Joints
from server.context.ledger import Ledger
from server.context.memory_store import MemoryStore
from server.context.template import ChatTemplate, Message
from server.context.wanted import Wanted
from server.knowledge import make_embedder, make_serving, search_options
from server.settings import Settings, load_settings
from server.starter import starter_chat_model, starter_embedder

TOP_K = 5
CHUNKS_A_DOCUMENT = 500
NOISE = 0.35
"""Length of what is added to a real vector, before both are normalised: a cosine of about 0.94 to it."""
AIM_MS = 6.0


@dataclass(frozen=True, slots=True)
class Corpus:
    texts: list[str]
    vectors: Vectors
    n_real: int


def corpus_of(
    data: Path, n_chunks: int, template: ChatTemplate, embedder: Embedder, settings: Settings
) -> Corpus:
    retrieval = settings.retrieval
    passages = [json.loads(line)["text"] for line in (data / "passages.jsonl").open(encoding="utf-8")]
    texts = [
        piece.text
        for text in passages
        for piece in chunk(
            ParsedDocument("", (Section((), text),)),
            template,
            retrieval.chunk_tokens,
            retrieval.chunk_overlap_tokens,
        )
    ]
    vectors = _kept(f"{embedder.identity}\n" + "\n".join(texts), lambda: embedder.embed(texts))
    n_real = len(texts)
    draw, noise = random.Random(0), np.random.default_rng(0)
    sentences = [[part for part in text.split(". ") if part.strip()] or [text] for text in texts]
    made = noise.integers(0, n_real, n_chunks - n_real)
    for row in made.tolist():
        own, other = sentences[row], sentences[draw.randrange(n_real)]
        texts.append(
            ". ".join([*draw.sample(own, (len(own) + 1) // 2), *draw.sample(other, len(other) // 2)])
        )
    added = noise.normal(size=(len(made), vectors.shape[1])).astype(np.float32)
    added *= NOISE / np.linalg.norm(added, axis=1, keepdims=True)
    near = vectors[made] + added
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return Corpus(texts, np.concatenate([vectors, near]), n_real)


def _kept(what: str, make: Any) -> Vectors:
    path = (
        Path(tempfile.gettempdir()) / f"firstword-bench-{hashlib.sha256(what.encode()).hexdigest()[:16]}.npy"
    )
    if not path.exists():
        np.save(path, make())
    found: Vectors = np.load(path)
    return found


def fill(store: SqliteStore, corpus: Corpus) -> float:
    """Seconds."""
    began = time.perf_counter()
    for first in range(0, len(corpus.texts), CHUNKS_A_DOCUMENT):
        rows = range(first, min(first + CHUNKS_A_DOCUMENT, len(corpus.texts)))
        source = f"bench-{first}"
        document = Document(document_id_for(source), source, f"{source}.txt", "", source, 0, len(rows), 0.0)
        chunks = [Chunk(at, (), corpus.texts[row], 100) for at, row in enumerate(rows)]
        store.put(document, chunks, corpus.vectors[rows.start : rows.stop])
    return time.perf_counter() - began


def conversations_of(data: Path) -> list[Conversation]:
    found = []
    for line in (data / "conversations.jsonl").open(encoding="utf-8"):
        turns = json.loads(line)["turns"]
        said = [
            message
            for turn in turns
            for message in (Message("user", turn["user"]), Message("assistant", turn["agent"]))
        ]
        found.append(read_conversation(said[:-1]))
    return found


class Plain:
    """What most tutorials do."""

    def __init__(self, model: str, corpus: Corpus) -> None:
        import faiss

        self._embedder = SentenceTransformerEmbedder(model)
        # Its own vectors: queries are compared with what the same model made.
        self._index = faiss.IndexFlatIP(corpus.vectors.shape[1])
        self._index.add(corpus.vectors)
        self._faiss = faiss

    def search(self, query: str) -> tuple[float, float]:
        """Milliseconds of embedding and of the search, as it is for one query on both cores."""
        began = time.perf_counter()
        vector = self._embedder.embed([query])
        embedded = time.perf_counter()
        self._index.search(vector, TOP_K)
        return (embedded - began) * 1e3, (time.perf_counter() - embedded) * 1e3


class Product:
    def __init__(self, retriever: Retriever, template: ChatTemplate, settings: Settings) -> None:
        self._retriever = retriever
        self._assembler = Assembler(template, Joints(template), settings)
        self._ledger = Ledger(MemoryStore(1 << 28), b"bench")
        self._settings = settings

    async def earlier_turns(self, conversation: Conversation) -> None:
        """What the user said before was searched for then."""
        for message in conversation.query.previous:
            await self._retriever.search(Query(message), Scope(), TOP_K)

    async def turn(self, conversation: Conversation) -> dict[str, float]:
        began = time.perf_counter()
        passages, timing = await self._retriever.search(conversation.query, Scope(), TOP_K)
        searched = time.perf_counter()
        alone = replace(conversation, history=())
        recalled = await self._ledger.recall(alone, "bench", "", ())
        assembling = time.perf_counter()
        self._assembler.assemble(recalled, Wanted(passages=passages, max_tokens=256, max_model_len=4096), len)
        assembled = time.perf_counter()
        return {
            "embed": timing.embed_ms,
            "search": (searched - began) * 1e3 - timing.embed_ms,
            "assemble": (assembled - assembling) * 1e3,
            "total": (searched - began + assembled - assembling) * 1e3,
        }


async def recall_of(retriever: Retriever, corpus: Corpus, vectors: Vectors) -> float:
    """recall@5 of the vector index against exact inner products."""
    view = retriever.view
    found = await view.vectors.search(vectors, TOP_K, view.catalog.select(Scope()))
    scores = vectors @ corpus.vectors.T
    hits = 0
    for hit, row in zip(found, scores, strict=True):
        worst = np.sort(row)[-TOP_K]
        hits += sum(score >= worst - 1e-6 for _, score in hit)
    return hits / (len(vectors) * TOP_K)


async def measure(settings: Settings, data: Path, n_chunks: int, seconds_between: float) -> dict[str, Any]:
    template = ChatTemplate(str(starter_chat_model(settings.models_path)))
    embedder = make_embedder(settings)
    corpus = corpus_of(data, n_chunks, template, embedder, settings)
    talks = conversations_of(data)
    with tempfile.TemporaryDirectory() as folder:
        own = settings.model_copy(update={"data_dir": Path(folder)})
        store = SqliteStore(Path(folder) / "store.sqlite")
        store.claim_embedder(embedder.identity, embedder.dim)
        fill_s = fill(store, corpus)
        retriever = Retriever(
            store, lambda reading: make_serving(own, store, embedder, reading), search_options(own)
        )
        began = time.perf_counter()
        await retriever.load()
        load_s = time.perf_counter() - began
        try:
            product = Product(retriever, template, own)
            plain = Plain(str(starter_embedder(settings.models_path)), corpus)
            queries = ["\n".join([*talk.query.previous[-1:], talk.query.question]) for talk in talks]
            rows = []
            for round_, (talk, query) in enumerate(zip(talks, queries, strict=True)):
                await product.earlier_turns(talk)
                ours = await product.turn(talk)
                embed_ms, search_ms = await asyncio.to_thread(plain.search, query)
                if round_ >= 10:  # the first few warm both up
                    rows.append({**ours, "plain_embed": embed_ms, "plain_search": search_ms})
                await asyncio.sleep(seconds_between)
            recall = await recall_of(retriever, corpus, embedder.embed(queries[:100]))
        finally:
            await retriever.close()
            store.close()
    return {
        "chunks": n_chunks,
        "real_chunks": corpus.n_real,
        "embedder": embedder.identity,
        "fill_s": fill_s,
        "load_s": load_s,
        "recall_at_5": recall,
        "rows": rows,
    }


def sheet(found: dict[str, Any]) -> Sheet:
    rows = found["rows"]
    plain = [row["plain_embed"] + row["plain_search"] for row in rows]
    lines: Lines = []
    for name in ("embed", "search", "assemble", "total"):
        lines.append((name, *_percentiles([row[name] for row in rows])))
    lines.append(("plain: torch embedding", *_percentiles([row["plain_embed"] for row in rows])))
    lines.append(("plain: flat search", *_percentiles([row["plain_search"] for row in rows])))
    lines.append(("plain: both", *_percentiles(plain)))
    ratio = np.median(plain) / np.median([row["total"] for row in rows])
    title = (
        f"{found['chunks']:,} chunks: {ratio:.1f}x faster at p50 (aim 4x, and p50 at most {AIM_MS:g} ms); "
        f"recall@5 of the vector index {found['recall_at_5']:.3f}"
    )
    return Sheet(title, ("phase", "p50 ms", "p90 ms", "p99 ms"), lines)


def _percentiles(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{np.percentile(values, percent):.2f}" for percent in (50, 90, 99))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--seconds-between", type=float, default=0.02)
    options = parser.parse_args()
    found = asyncio.run(measure(load_settings(), options.data, options.chunks, options.seconds_between))
    sheets = [sheet(found)]
    where = conditions()
    show(open_console(), sheets, where)
    keep("hybrid", sheets, where)
    document = {"conditions": where, **found}
    (BENCH_DIR / "hybrid.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""A document's bytes to what the store takes: parsed and cut, and a vector for each chunk that has none yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

import numpy as np

from retrieval.embed.text import chunk_text_for_embedding
from retrieval.errors import EmbedderMismatch
from retrieval.ingest.chunk import chunk
from retrieval.parse.document import PARSER_VERSION, parse
from retrieval.types import Chunk, DocumentStore, Embedder, Prepared, TokenCounter, Vectors

_EMBEDDED_AT_A_TIME = 64

Tell = Callable[[int, int], None]
"""Told how many of how many chunks have their vector."""


class Prepares(Protocol):
    def prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        """Raises the errors of a document that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class DirectPreparer:
    """Parses in this process: for documents that nobody else has a hand in."""

    counter: TokenCounter

    def prepare(self, data: bytes, filename: str, chunk_tokens: int, overlap_tokens: int) -> Prepared:
        parsed = parse(data, PurePath(filename))
        return Prepared(parsed.title, tuple(chunk(parsed, self.counter, chunk_tokens, overlap_tokens)))


@dataclass(frozen=True, slots=True)
class Taken:
    title: str
    chunks: tuple[Chunk, ...]
    vectors: Vectors
    """(len(chunks), dim)"""
    n_embedded: int
    """Chunks whose text no chunk of the store had before."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Blocks; any number of threads may use it at once."""

    preparer: Prepares
    embedder: Embedder
    store: DocumentStore

    def content_sha256(self, data: bytes, chunk_tokens: int, overlap_tokens: int) -> str:
        """Changes when the stored chunks would: with the bytes, the chunk settings or the parser."""
        settings = json.dumps([PARSER_VERSION, chunk_tokens, overlap_tokens])
        return hashlib.sha256(settings.encode() + b"\n" + data).hexdigest()

    def take(
        self,
        data: bytes,
        filename: str,
        chunk_tokens: int,
        overlap_tokens: int,
        store_id: str,
        tell: Tell = lambda n, of: None,
    ) -> Taken:
        """Raises the errors of `Prepares.prepare`; `EmbedderMismatch` when the store changed to another model."""
        prepared = self.preparer.prepare(data, filename, chunk_tokens, overlap_tokens)
        texts = [chunk_text_for_embedding(prepared.title, piece) for piece in prepared.chunks]
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        known = self.store.known_vectors(digests, store_id)
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        n_known = len(texts) - len(missing)
        tell(n_known, len(texts))
        waiting = list(missing.items())
        for at in range(0, len(waiting), _EMBEDDED_AT_A_TIME):
            some = waiting[at : at + _EMBEDDED_AT_A_TIME]
            vectors = self.embedder.embed([text for _, text in some])
            known.update(zip((digest for digest, _ in some), vectors, strict=True))
            tell(n_known + at + len(some), len(texts))
        return Taken(prepared.title, prepared.chunks, self._matrix(known, digests, filename), len(missing))

    def _matrix(self, known: dict[bytes, Vectors], digests: list[bytes], filename: str) -> Vectors:
        matrix = np.empty((len(digests), self.embedder.dim), dtype=np.float32)
        for row, digest in enumerate(digests):
            if known[digest].shape != matrix.shape[1:]:
                raise EmbedderMismatch(
                    f"{filename}: the store's vectors are of another embedding model now; ingest it again"
                )
            matrix[row] = known[digest]
        return matrix

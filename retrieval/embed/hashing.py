"""Text to vectors without a model, for tests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from retrieval.types import Vectors


class HashingEmbedder:
    """A bag of hashed words, L2-normalised: instant, the same in every process, and blind to meaning.

    For tests only, never a default: it finds passages that share words with the query, nothing more.
    """

    def __init__(self, dim: int = 256) -> None:
        self._dim = dim

    @property
    def identity(self) -> str:
        return f"hashing-{self._dim}"

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self._dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                vectors[row, digest % self._dim] += 1.0
            if not vectors[row].any():
                vectors[row, 0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

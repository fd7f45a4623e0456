"""What a worker is asked to do. Stores, files and documents are named by names that are given once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from retrieval.types import DEFAULT_STORE, DEPLOYMENT, Vectors

DEFAULT_MOMENT_S = 0.004
"""How long an operation takes, until one was measured."""
FIRST_MODEL = "model-8-1"
"""The number of dimensions stands in the name."""


@dataclass(frozen=True, slots=True)
class Operation:
    kind: str
    store: str = DEFAULT_STORE
    name: str = ""
    """Of the document, file or store that it is about; of the model, for a reindex."""
    texts: tuple[str, ...] = ()
    repeat: int = 1
    """How many times each text stands in its chunk."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 0
    beside: Operation | None = None
    """Done by another thread meanwhile."""

    @property
    def contents(self) -> tuple[str, ...]:
        return tuple(text * self.repeat for text in self.texts)


def tenant_of(name: str) -> str:
    """Names begin with their tenant's; what is the deployment's is in no other store."""
    return DEPLOYMENT if name == DEFAULT_STORE or not name.startswith(("a-", "b-")) else name[0]


def dim_of(model: str) -> int:
    return int(model.split("-")[1])


def model_after(model: str) -> str:
    """Another name, and other dimensions."""
    _, dim, number = model.split("-")
    return f"model-{20 - int(dim)}-{int(number) + 1}"


@dataclass(frozen=True, slots=True)
class NoEmbedder:
    """The model's name and dimensions: all that a view asks for while it is built."""

    identity: str

    @property
    def dim(self) -> int:
        return dim_of(self.identity)


def embedded(texts: tuple[str, ...], model: str) -> Vectors:
    """(len(texts), dim) float32, L2-normalised: of a text and a model, always the same."""
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    vectors = [_vector(digest, model) for digest in digests]
    return np.array(vectors, dtype=np.float32).reshape(-1, dim_of(model))


@lru_cache(maxsize=20_000)
def _vector(digest: bytes, model: str) -> tuple[float, ...]:
    seed = int.from_bytes(hashlib.sha256(model.encode() + digest).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dim_of(model)).astype(np.float32)
    return tuple(vector / np.linalg.norm(vector))

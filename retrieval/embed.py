"""Text to vectors: a sentence-transformers model on disk, and a hashing stand-in for tests."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from retrieval.errors import EmbedderMissing
from retrieval.types import Vectors

_FEW_TEXTS = 4


class SentenceTransformerEmbedder:
    """A sentence-transformers model in a local folder; several threads may share it.

    `HF_HUB_OFFLINE` is set to 1 where it is unset: the model is a folder, and without it the libraries would
    ask a hub about it. Raises `EmbedderMissing` when the folder or its weights are not there.
    """

    def __init__(self, path: str, batch_size: int = 32, device: str | None = None) -> None:
        folder = Path(path).expanduser()
        weights = _weights_files(folder)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise EmbedderMissing(
                f"{folder}: the embedding model cannot be loaded ({error}); run `firstword models prepare`"
            ) from error
        dim = self._model.get_embedding_dimension()
        self._dim = int(dim)
        self._identity = f"{_model_name(folder)}@sha256:{_sha256(weights)}"
        self._batch_size = batch_size
        # A fast tokenizer refuses concurrent use ("Already borrowed"). The lock is taken for each batch, so
        # that a query waits for one batch of an ingest and not for a whole document.
        self._lock = Lock()

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        import torch

        # A query's few tokens do not fill two cores, and threads that wait for one another lose to a busy
        # engine: 30 ms on one thread, 200 to 470 on two, on two cores at a load of 8. The setting belongs to
        # the calling thread.
        n_threads = torch.get_num_threads()
        if len(texts) <= _FEW_TEXTS:
            torch.set_num_threads(1)
        try:
            return self._embed(texts)
        finally:
            torch.set_num_threads(n_threads)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        # Texts of similar length share a batch, so that little of it is padding.
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for first in range(0, len(texts), self._batch_size):
            rows = by_length[first : first + self._batch_size]
            with self._lock:
                vectors[rows] = self._model.encode(
                    [texts[row] for row in rows],
                    batch_size=self._batch_size,
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
        return vectors


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


def _weights_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise EmbedderMissing(f"{folder}: no embedding model there; run `firstword models prepare`")
    files = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("pytorch_model*.bin"))
    if not files:
        raise EmbedderMissing(
            f"{folder}: holds no model weights (*.safetensors); run `firstword models prepare`"
        )
    return files


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _model_name(folder: Path) -> str:
    """The name the model was published under, where its configuration tells it, else its folder's name."""
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        name = None
    return Path(str(name or folder.resolve())).name

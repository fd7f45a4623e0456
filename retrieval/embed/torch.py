"""Text to vectors through sentence-transformers: any of its models, on a GPU or the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock

import numpy as np

from retrieval.embed.model import EmbeddingModel
from retrieval.errors import EmbedderMissing
from retrieval.types import Vectors

_FEW_TEXTS = 4


class SentenceTransformerEmbedder:
    """A sentence-transformers model in a local folder; several threads may share it.

    `HF_HUB_OFFLINE` is set to 1 where it is unset: the model is a folder, and without it the libraries would
    ask a hub about it. Raises `EmbedderMissing` when the folder or its weights are not there.
    """

    def __init__(self, path: str, batch_size: int = 32, device: str | None = None) -> None:
        model = EmbeddingModel.at(path)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(str(model.folder), device=device, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise EmbedderMissing(
                f"{model.folder}: the embedding model cannot be loaded ({error}); run `firstword models prepare`"
            ) from error
        self._dim = int(self._model.get_embedding_dimension())
        self._identity = model.identity
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

"""A cross-encoder that reads query and passage together: better than any vector, and much slower."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from retrieval.errors import RerankerMissing


class CrossEncoderReranker:
    """A sentence-transformers `CrossEncoder` with one label, in a local folder; several threads may share it.

    `HF_HUB_OFFLINE` is set to 1 where it is unset: the model is a folder, and without it the libraries would
    ask a hub about it. Raises `RerankerMissing` when the folder or its weights are not there.
    """

    def __init__(
        self, path: str, batch_size: int = 8, max_tokens: int | None = None, device: str | None = None
    ) -> None:
        """Of a query and a text together, `max_tokens` are read; None: as many as the model can."""
        folder = Path(path).expanduser()
        if not any(folder.rglob("*.safetensors")) and not any(folder.rglob("pytorch_model*.bin")):
            raise RerankerMissing(
                f"{folder}: holds no model weights (*.safetensors); "
                "name a cross-encoder's folder or turn the reranker off"
            )
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from safetensors import SafetensorError
        from sentence_transformers import CrossEncoder
        from torch.nn import Sigmoid

        try:
            self._model = CrossEncoder(
                str(folder),
                device=device,
                max_length=max_tokens,
                activation_fn=Sigmoid(),
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise RerankerMissing(
                f"{folder}: the reranker cannot be loaded ({error}); "
                "name a cross-encoder's folder or turn the reranker off"
            ) from error
        if self._model.num_labels != 1:
            raise RerankerMissing(
                f"{folder}: the model tells {self._model.num_labels} classes apart, it does not rank; "
                "name a cross-encoder with one label"
            )
        self._batch_size = batch_size
        # A fast tokenizer refuses concurrent use ("Already borrowed").
        self._lock = Lock()

    def rerank(self, query: str, texts: Sequence[str], budget_ms: float) -> list[float | None]:
        """Relevance in [0, 1], batch by batch in the texts' order; `None` from where the time was used up.

        A batch is not begun when the one before it took longer than what is left. Give the best texts first.
        """
        relevance: list[float | None] = [None] * len(texts)
        with self._lock:
            started = last = time.monotonic()
            for first in range(0, len(texts), self._batch_size):
                now = time.monotonic()
                if (now - started) + (now - last) >= budget_ms / 1000:
                    break
                last = now
                pairs = [(query, text) for text in texts[first : first + self._batch_size]]
                scores = self._model.predict(
                    pairs, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True
                )
                relevance[first : first + len(pairs)] = [float(score) for score in scores]
        return relevance


def reranked(n: int, relevance: Sequence[float | None]) -> list[int]:
    """The order of `n` candidates: those with a relevance, best first, then the rest as they were."""
    known = [(at, score) for at, score in enumerate(relevance[:n]) if score is not None]
    order = [at for at, _ in sorted(known, key=lambda pair: (-pair[1], pair[0]))]
    return order + [at for at in range(n) if at >= len(relevance) or relevance[at] is None]

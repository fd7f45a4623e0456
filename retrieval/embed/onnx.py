"""Text to vectors through ONNX Runtime on the CPU: two to four times as fast as torch, and without importing it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval.embed.model import EmbeddingModel
from retrieval.embed.onnx_cache import Precision, onnx_model
from retrieval.embed.onnx_graph import GRAPH, META, TOKENIZER
from retrieval.errors import EmbedderMissing
from retrieval.types import Vectors


class OnnxSession:
    """One graph with its tokenizer, loaded. Any thread may use it; both let go of the GIL."""

    def __init__(self, folder: Path, n_threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        # A thread that spins while it waits takes the core from the engine: with both cores busy, spinning
        # made a query two to three times as slow.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            folder / GRAPH, options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))

    def vector(self, text: str) -> Vectors:
        """`(1, dim)`."""
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        (vector,) = self._session.run(None, {"input_ids": ids})
        return np.asarray(vector, dtype=np.float32)


class OnnxEmbedder:
    """A sentence-transformers model as an ONNX graph, made at first use and kept below `cache`; threads may share it.

    Texts are computed one by one: on a few cores a batch gains nothing, padding costs, and a text's vector is the
    same whatever stands beside it, to the bit. Raises `EmbedderMissing`, `UnsuitableModel`.
    """

    def __init__(self, path: str, precision: Precision, cache: Path, n_threads: int = 2) -> None:
        model = EmbeddingModel.at(path)
        folder = onnx_model(model, precision, cache)
        try:
            self._dim = int(json.loads((folder / META).read_text(encoding="utf-8"))["dim"])
            self._session = OnnxSession(folder, n_threads)
        except ImportError as error:
            raise EmbedderMissing(
                f"{model.folder}: the ONNX backend needs {error.name}; run `make setup`"
            ) from error
        # In float32 the vectors are torch's but for rounding (1e-6), so they may stand in one store.
        self._identity = model.identity if precision == "fp32" else f"{model.identity}+{precision}"

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._session.vector(text)[0]
        return vectors

"""Which embedder runs a model: the choice, and the names of all of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrieval.embed.hashing import HashingEmbedder
from retrieval.embed.onnx import OnnxEmbedder
from retrieval.embed.onnx_cache import UnsuitableModel
from retrieval.embed.torch import SentenceTransformerEmbedder
from retrieval.types import Embedder

__all__ = [
    "Backend",
    "EmbedderSpec",
    "HashingEmbedder",
    "OnnxEmbedder",
    "SentenceTransformerEmbedder",
    "open_embedder",
]

Backend = Literal["auto", "torch", "onnx", "onnx-int8", "hashing"]

_HASHING_DIM = 384
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What an embedder is made of; equal specs on one machine give embedders of one identity."""

    path: str
    """A sentence-transformers model in a folder."""
    backend: Backend = "auto"
    device: str | None = None
    """torch's name of it; None: a GPU where there is one, else the CPU."""
    cache: str = ""
    """The folder that ONNX graphs are kept in; empty: `onnx` inside the model's."""
    n_threads: int = 2


def open_embedder(spec: EmbedderSpec) -> Embedder:
    """`auto` is INT8 through ONNX Runtime on the CPU, and torch on a GPU or where ONNX cannot run the model.

    Raises `EmbedderMissing`, and its subclass `UnsuitableModel` where an ONNX backend was asked for by name.
    """
    cache = Path(spec.cache).expanduser() if spec.cache else Path(spec.path).expanduser() / "onnx"
    match spec.backend:
        case "hashing":
            return HashingEmbedder(_HASHING_DIM)
        case "torch":
            return SentenceTransformerEmbedder(spec.path, device=spec.device)
        case "onnx":
            return OnnxEmbedder(spec.path, "fp32", cache, spec.n_threads)
        case "onnx-int8":
            return OnnxEmbedder(spec.path, "int8", cache, spec.n_threads)
        case "auto":
            if (spec.device or _device()) != "cpu":
                return SentenceTransformerEmbedder(spec.path, device=spec.device)
            try:
                return OnnxEmbedder(spec.path, "int8", cache, spec.n_threads)
            except UnsuitableModel as error:
                log.warning("%s; torch runs it meanwhile", error)
                return SentenceTransformerEmbedder(spec.path, device="cpu")


def _device() -> str:
    # Importing torch takes seconds: it is asked only where a GPU's device file shows that there may be one.
    if not any(path.exists() for path in (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

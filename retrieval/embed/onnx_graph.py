"""Turn a sentence-transformers model into one ONNX graph, token ids to vectors: `python -m retrieval.embed.onnx_graph`.

A process of its own: it needs torch, which nothing that embeds with ONNX Runtime needs.

Divergences
- sentence-transformers' own ONNX backend is not used: it goes through optimum, which holds transformers below 5.
- The graph takes one text, not a batch, and no attention mask: without padding there is nothing to mask, which
  saves a tenth of the time; and INT8 scales an activation by its largest value, so that in a batch a text's vector
  would depend on the texts beside it.
- The exporter is torch's older one (`dynamo=False`): it needs nothing but `onnx`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

UNSUITABLE = 3
"""The exit status for a model that is more than token ids → transformer → mean or first token → length 1."""
GRAPH, TOKENIZER, META = "model.onnx", "tokenizer.json", "meta.json"
_SAMPLES = ("", "hello", "Überraschung, naïve café!", "漢字 😀", "  two\nlines  ", "How many days? " * 200)
_SAME = 0.9999


def main(folder: str, target: str, precision: str) -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    reason = unsuitable(model)
    if not reason:
        write_graph(model, Path(target))
        reason = _differs(model, Path(target))
    if reason:
        print(reason, file=sys.stderr)
        return UNSUITABLE
    if precision == "int8":
        quantize(Path(target) / GRAPH)
    meta = {"dim": model.get_embedding_dimension(), "sha256": digest(Path(target))}
    (Path(target) / META).write_text(json.dumps(meta))
    return 0


def digest(folder: Path) -> str:
    """The SHA-256 of graph and tokenizer: a damaged one is told by it."""
    return hashlib.sha256((folder / GRAPH).read_bytes() + (folder / TOKENIZER).read_bytes()).hexdigest()


def unsuitable(model: SentenceTransformer) -> str:
    """Why the model does not fit the graph; empty where it does."""
    modules = [type(module).__name__ for module in model]
    if modules not in (["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"]):
        return f"its modules are {modules}"
    if model[1].pooling_mode not in ("mean", "cls"):
        return f"its pooling is {model[1].pooling_mode!r}"
    if model.default_prompt_name or model[0].do_lower_case or not model.tokenizer.is_fast:
        return "it has a default prompt or a tokenizer in Python"
    return ""


def write_graph(model: SentenceTransformer, target: Path) -> None:
    """float32; and the tokenizer, which cuts at the model's longest sequence."""
    import torch

    transformer, mean = model[0].auto_model, model[1].pooling_mode == "mean"

    class TextToVector(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Any) -> Any:
            hidden = self.transformer(input_ids=input_ids).last_hidden_state
            return torch.nn.functional.normalize(hidden.mean(1) if mean else hidden[:, 0], dim=1)

    torch.onnx.export(
        TextToVector().eval(),
        (torch.ones((1, 9), dtype=torch.long),),
        target / GRAPH,
        input_names=["input_ids"],
        output_names=["vectors"],
        dynamic_axes={"input_ids": {1: "length"}},
        opset_version=17,
        dynamo=False,
    )
    tokenizer = model.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_seq_length)
    tokenizer.save(str(target / TOKENIZER))


def _differs(model: SentenceTransformer, target: Path) -> str:
    from retrieval.embed.onnx import OnnxSession

    expected = model.encode(list(_SAMPLES), normalize_embeddings=True, show_progress_bar=False)
    session = OnnxSession(target, n_threads=1)
    found = np.concatenate([session.vector(text) for text in _SAMPLES])
    cosines = (expected * found).sum(axis=1)
    return (
        "" if (cosines > _SAME).all() else f"its ONNX graph gives other vectors (cosine {cosines.min():.4f})"
    )


def quantize(graph: Path) -> None:
    """Weights to 7 bits in INT8, a scale per output channel; activations are quantised as they come.

    With 8 bits the sums of processors without VNNI saturate at 16 bits: the vectors of one text would differ from
    machine to machine. 7 bits are as fast and never saturate (onnxruntime's quantization guide, "reduce_range").
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = graph.rename(graph.with_suffix(".float32"))
    quantize_dynamic(
        whole,
        graph,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"MatMulConstBOnly": True},
    )
    whole.unlink()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

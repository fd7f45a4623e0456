"""Where and with what an evaluation was made."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from retrieval.types import Embedder
from server.evaluation.data import Data
from server.evaluation.report import Conditions
from server.parts import Parts

_SHAPE_A_PROMPT = {
    "prompt": None,
    "context": {
        "order_margin",
        "order_window",
        "max_prompt_tokens",
        "compact_to",
        "attention_cost",
        "overlap_tokens",
    },
    "retrieval": {"embedder_kind", "min_score"},
    "generation": {"temperature", "repetition_penalty"},
    "engine": {"dtype", "enforce_eager", "max_num_batched_tokens"},
}
"""Settings by section; None: all of them. What a mode sets is not in it."""


def conditions_of(parts: Parts, embedder: Embedder, data: Data) -> Conditions:
    settings, limits = parts.settings, parts.engine.limits
    dumped = settings.model_dump(
        mode="json", include={name: fields or True for name, fields in _SHAPE_A_PROMPT.items()}
    )
    return Conditions(
        tool=f"firstword {version('firstword')}",
        python=platform.python_version(),
        machine=machine(),
        device=_device(),
        model=parts.model_name,
        engine=settings.engine.kind,
        embedder=embedder.identity,
        max_model_len=limits.max_model_len,
        block_size=limits.block_size,
        kv_blocks=limits.kv_blocks,
        data=data.name,
        data_sha256=data.sha256,
        settings=dumped,
    )


def machine() -> str:
    """Kind of CPU and number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {os.cpu_count()} cores"


def _device() -> str:
    """Does not import torch by itself, which takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return str(torch.cuda.get_device_name(0))

"""The model and how it is run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from server.sections.section import STARTER, Section


class SimulatedSettings(Section):
    prefill_tokens_per_s: float = Field(20_000, gt=0)
    """Prompt tokens computed per second, one prompt after the other."""
    first_token_ms: float = Field(0.0, ge=0)
    """Time from the end of a prompt's prefill to its first token; prompts do not wait for one another here."""
    token_interval_ms: float = Field(10.0, ge=0)
    """Time between two tokens of one answer."""
    kv_blocks: int = Field(4_096, ge=1)
    """Size of the prefix cache in blocks."""
    reply: str = Field(
        "This is the simulated engine: it measures the gateway and knows nothing. "
        "It counted {prompt_tokens} prompt tokens, {cached_tokens} of them from its prefix cache. 👋",
        min_length=1,
    )
    """What it answers."""


class EngineSettings(Section):
    kind: Literal["embedded", "simulated"] = "embedded"
    """`embedded`: vLLM in this process. `simulated`: for measuring the gateway alone."""
    model: str = STARTER
    """`starter`, a local path, or a Hugging Face name."""
    served_model_name: str = ""
    """Name in the API; empty: the last part of `model`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights and activations. CPUs without AVX-512 have no bfloat16 kernels: float32 there."""
    enforce_eager: bool = False
    """Skip compilation: starts in a minute on a CPU instead of four, costs throughput on a GPU."""
    block_size: int = Field(32, ge=16, le=256, multiple_of=16)
    """Tokens per KV block; the prefix cache works in whole blocks. CPUs need a multiple of 32."""
    max_model_len: int = Field(4_096, ge=256)
    """Longest prompt plus answer, in tokens."""
    max_num_seqs: int = Field(16, ge=1, le=4_096)
    """Most sequences in one batch."""
    max_num_batched_tokens: int = Field(256, ge=32)
    """Tokens per engine step: small keeps running streams smooth, large finishes a long prefill sooner."""
    kv_cache_gib: int = Field(2, ge=1, le=4_096)
    """KV cache on a CPU, in GiB (on a GPU: `gpu_memory_utilization`)."""
    gpu_memory_utilization: float = Field(0.9, gt=0.05, le=0.98)
    """Share of the GPU's memory for weights and KV cache."""
    tensor_parallel_size: int = Field(1, ge=1, le=64)
    """GPUs one model is spread over."""
    tool_parser: str = ""
    """vLLM's name of the parser that finds tool calls in the model's text; empty: tools are refused."""
    reasoning_parser: str = ""
    """vLLM's name of the parser that tells reasoning from the answer; empty: all text is the answer."""
    restart_backoff_s: float = Field(1.0, gt=0, le=60)
    """Pause before the first restart after a crash; doubles each time, up to a minute."""
    canary_s: float = Field(15.0, gt=0, le=3_600)
    """An engine that has been idle this long is asked for one token, to see that it still answers."""
    stall_s: float = Field(20.0, gt=0, le=3_600)
    """An engine with work that finishes no step for this long is not ready any more."""
    stall_restart_s: float = Field(60.0, gt=0, le=3_600)
    """And after this much longer it is ended and started anew."""
    retry_wait_s: float = Field(90.0, ge=0, le=3_600)
    """A turn whose engine failed before its first token waits this long for one that answers, and tries once more."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "ERROR"
    """vLLM's own log; below ERROR its start is talkative."""
    simulated: SimulatedSettings = SimulatedSettings()
    """Only for `kind = "simulated"`."""

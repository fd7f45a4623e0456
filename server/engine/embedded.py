"""vLLM's `AsyncLLM` in the gateway's process; its engine core and workers are processes of their own.

Divergences from the way vLLM starts itself:
- `AsyncLLM` is built in a daemon thread, since importing vLLM and waiting for its core take a minute in
  which the port must answer; a shutdown in that minute ends the core instead of waiting for it.
- Only our own stat logger is attached: vLLM's Prometheus logger writes into the process-wide registry.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import fields
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from server.engine.detached import run_detached
from server.engine.protocol import (
    Delta,
    EngineDead,
    EngineLimits,
    EngineLoad,
    FinishReason,
    GenerateRequest,
    Logprob,
    Prefill,
    PromptTooLong,
    RequestAborted,
    RequestFailed,
    RequestRefused,
    Sampling,
    TokenLogprobs,
)
from server.errors import ConfigError
from server.sections.engine import EngineSettings

_DEATH_POLL_S = 0.1
_LEAST_LOGPROB = -9999.0
"""JSON has no infinity; OpenAI's API writes this instead."""

_SHUTDOWN_S = 0.5
"""After this the engine's processes are killed; by then no stream is left that could mind."""


class EmbeddedEngine:
    """See `Engine`. `model` is a local path or a Hugging Face name."""

    def __init__(self, settings: EngineSettings, model: str) -> None:
        self._settings = settings
        self._model = model
        self._llm: Any = None
        self._closing = threading.Event()
        self.limits = EngineLimits(settings.max_model_len, settings.block_size, kv_blocks=1)
        self.load = EngineLoad()

    async def start(self) -> None:
        try:
            self._llm = await run_detached(self._build, "engine-start", lambda llm: llm.shutdown(_SHUTDOWN_S))
            config = self._llm.vllm_config
            self.limits = EngineLimits(
                max_model_len=config.model_config.max_model_len,
                block_size=config.cache_config.block_size,
                kv_blocks=config.cache_config.num_gpu_blocks or 1,
            )
            await self._warm_up()
        except Exception as error:
            raise EngineDead(f"the engine did not start: {error}") from error

    async def _warm_up(self) -> None:
        """One token, so that nobody's first turn pays for what is set up on first use. Proves that it answers."""
        request = GenerateRequest(
            "warm-up", [0] * self.limits.block_size, Sampling(max_tokens=1), salt="warm-up"
        )
        async with aclosing(self.generate(request)) as deltas:
            async for _ in deltas:
                pass

    def _build(self) -> Any:
        import_vllm(self._settings, local=Path(self._model).is_dir())
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        settings = self._settings
        arguments = AsyncEngineArgs(
            model=self._model,
            dtype=settings.dtype,
            enforce_eager=settings.enforce_eager,
            block_size=settings.block_size,
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            tensor_parallel_size=settings.tensor_parallel_size,
            reasoning_parser=settings.reasoning_parser,
            enable_prefix_caching=True,
            scheduling_policy="priority",
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
        if self._closing.is_set():
            raise EngineDead("shut down while starting")
        _keep_interrupts_from_children()
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[self._stat_logger()])

    def _stat_logger(self) -> Any:
        from vllm.v1.metrics.loggers import StatLoggerBase

        load = self.load

        class LoadLogger(StatLoggerBase):  # type: ignore[misc]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
                load.stepped_at = time.monotonic()
                if scheduler_stats is not None:
                    load.running_requests = scheduler_stats.num_running_reqs
                    load.waiting_requests = scheduler_stats.num_waiting_reqs
                    load.kv_cache_usage = scheduler_stats.kv_cache_usage

            def log_engine_initialized(self) -> None:
                pass

        return LoadLogger

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if len(request.prompt_token_ids) >= self.limits.max_model_len:
            raise PromptTooLong
        stream = self._llm.generate(
            _prompt(request),
            _sampling_params(request.sampling),
            request.request_id,
            priority=request.priority,
        )
        prefill_pending = True
        try:
            async for output in stream:
                prefill = None
                if prefill_pending:
                    prefill_pending = False
                    prefill = Prefill(
                        scheduled_at=output.metrics.scheduled_ts,
                        first_token_at=output.metrics.first_token_ts,
                        cached_tokens=output.num_cached_tokens or 0,
                    )
                for completion in output.outputs:
                    if completion.finish_reason == "abort":
                        raise RequestAborted(request.request_id)
                    if completion.finish_reason == "error":
                        raise RequestFailed("the engine ended it with an error")
                    finish_reason: FinishReason | None = completion.finish_reason
                    yield Delta(
                        tuple(completion.token_ids),
                        completion.text,
                        finish_reason,
                        prefill,
                        completion.index,
                        _logprobs(completion, request.sampling.logprobs) if completion.logprobs else (),
                    )
                    prefill = None
        except EngineDeadError as error:
            raise EngineDead("the engine core is gone") from error
        except EngineGenerateError as error:
            raise RequestFailed(str(error.__cause__ or error)) from error
        except (ValueError, VLLMClientError) as error:
            raise RequestRefused(str(error)) from error
        finally:
            await stream.aclose()

    async def abort(self, request_id: str) -> None:
        if self._llm is not None and not self._llm.errored:
            await self._llm.abort(request_id)

    async def died(self) -> str:
        while not self._llm.errored:  # noqa: ASYNC110 - vLLM sets a flag from a thread and calls nobody
            await asyncio.sleep(_DEATH_POLL_S)
        return "the engine core exited"

    async def close(self) -> None:
        self._closing.set()
        if self._llm is None:
            for child in multiprocessing.active_children():
                child.terminate()
            return
        llm, self._llm = self._llm, None
        await asyncio.to_thread(llm.shutdown, _SHUTDOWN_S)
        # An engine that stood still has sent no aborts: whoever waits for it would wait for ever.
        from vllm.v1.engine.exceptions import EngineDeadError

        llm.output_processor.propagate_error(EngineDeadError())


def _keep_interrupts_from_children() -> None:
    """Ctrl-C goes to every process of the terminal; the engine's must live on while running streams finish.

    Processes that this thread starts inherit its blocked signals. The resource tracker of multiprocessing
    unblocks them where it has to be started first, so it is started before.
    """
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def import_vllm(settings: EngineSettings, *, local: bool) -> None:
    """Import vLLM in this process, which takes up to 20 s, with the environment that it reads as it is imported.

    `local`: the model is a folder, and no hub is to be asked about it.

    Not to be run beside other imports of torch or transformers: two threads that import the same packages
    can see half of them. Raises `ConfigError` when it is not installed whole.
    """
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(settings.kv_cache_gib)
    os.environ["VLLM_LOGGING_LEVEL"] = settings.log_level
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ["VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"] = "1"
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    logging.getLogger("vllm").setLevel(settings.log_level)
    if settings.enforce_eager:
        # Some of vLLM's samplers are compiled even so; without a C++ compiler that would kill the engine.
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    if local:
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        importlib.import_module("vllm.v1.engine.async_llm")
    except ImportError as error:
        raise ConfigError(
            f"vLLM cannot be imported: {error}",
            next_step="run `make setup` (EXTRA=gpu on a machine with a GPU); a missing system library is named above",
        ) from error


def _prompt(request: GenerateRequest) -> Any:
    """vLLM takes a rendered prompt on the event loop, and a raw one, whose grammar it compiles, in a thread."""
    from vllm.inputs import TokensPrompt
    from vllm.inputs.engine import tokens_input

    token_ids, salt = list(request.prompt_token_ids), request.salt or None
    if request.sampling.grammar is None:
        return tokens_input(token_ids, cache_salt=salt)
    prompt = TokensPrompt(prompt_token_ids=token_ids)
    if salt is not None:
        prompt["cache_salt"] = salt
    return prompt


def _sampling_params(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    same: dict[str, Any] = {name: getattr(sampling, name) for name in _SAME_IN_VLLM}
    if sampling.grammar is not None:
        kind, text = sampling.grammar.kind, sampling.grammar.text
        constraint = {"json_object": True} if kind == "json_object" else {_GRAMMARS[kind]: text}
        same["structured_outputs"] = StructuredOutputsParams(**constraint)
    return SamplingParams(
        **same,
        stop=list(sampling.stop),
        logit_bias=dict(sampling.logit_bias) or None,
        output_kind=RequestOutputKind.DELTA,
    )


_GRAMMARS = {"json_schema": "json", "structural_tag": "structural_tag"}
_SAME_IN_VLLM = tuple(
    field.name for field in fields(Sampling) if field.name not in ("stop", "logit_bias", "grammar")
)


def _logprobs(completion: Any, n_top: int | None) -> tuple[TokenLogprobs, ...]:
    """Of each new token: vLLM gives {token id: Logprob} with the drawn token and the likeliest."""
    told = []
    for token_id, found in zip(completion.token_ids, completion.logprobs, strict=True):
        best = sorted(found.values(), key=lambda entry: -entry.logprob)[: n_top or 0]
        told.append(TokenLogprobs(_logprob(found[token_id]), tuple(_logprob(entry) for entry in best)))
    return tuple(told)


def _logprob(entry: Any) -> Logprob:
    return Logprob(entry.decoded_token or "", max(entry.logprob, _LEAST_LOGPROB))

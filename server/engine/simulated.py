"""An engine that computes nothing: fixed prefill rate, fixed token interval, and a true block-wise prefix cache.

It measures the gateway alone and lets tests run in milliseconds; it is never the default. As in vLLM:
whole blocks are cached, the last prompt token is always computed, a block is shared only under the same
salt and after the same tokens, unused blocks are evicted least recently used first, and prompts are
prefilled one after the other, by priority.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.engine.protocol import (
    Delta,
    EngineDead,
    EngineLimits,
    EngineLoad,
    FinishReason,
    GenerateRequest,
    Prefill,
    PromptTooLong,
    RequestAborted,
)
from server.settings import EngineSettings

_INCOMPLETE = "\ufffd"


class Vocabulary(Protocol):
    """What the simulated engine needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...


class PrefixCache:
    """Hash-chained blocks with reference counts; unreferenced blocks stay until their room is needed."""

    def __init__(self, n_blocks: int, block_size: int) -> None:
        self.n_blocks = n_blocks
        self.block_size = block_size
        self._references: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def blocks_in_use(self) -> int:
        return len(self._references)

    def match(self, chain: Sequence[int], n_prompt_tokens: int) -> int:
        """Tokens at the start of the prompt that need no computing."""
        n_whole = (n_prompt_tokens - 1) // self.block_size
        known = itertools.takewhile(lambda key: key in self._references or key in self._idle, chain[:n_whole])
        return sum(1 for _ in known) * self.block_size

    def chain(self, token_ids: Sequence[int], salt: str) -> list[int]:
        keys: list[int] = []
        parent = hash(salt)
        for start in range(0, len(token_ids) - self.block_size + 1, self.block_size):
            parent = hash((parent, tuple(token_ids[start : start + self.block_size])))
            keys.append(parent)
        return keys

    def hold(self, chain: Sequence[int]) -> None:
        for key in chain:
            self._idle.pop(key, None)
            self._references[key] += 1
        while self._idle and len(self._references) + len(self._idle) > self.n_blocks:
            self._idle.popitem(last=False)

    def release(self, chain: Sequence[int]) -> None:
        # Last block first: an evicted parent would make its children useless.
        for key in reversed(chain):
            self._references[key] -= 1
            if not self._references[key]:
                del self._references[key]
                self._idle[key] = None
        while self._idle and len(self._references) + len(self._idle) > self.n_blocks:
            self._idle.popitem(last=False)


@dataclass(order=True, slots=True)
class _Waiting:
    priority: int
    arrival: int
    ready: asyncio.Event = field(compare=False)


class SimulatedEngine:
    """See `Engine`."""

    def __init__(self, settings: EngineSettings, vocabulary: Vocabulary) -> None:
        self._simulated = settings.simulated
        self._vocabulary = vocabulary
        self.limits = EngineLimits(max_model_len=settings.max_model_len, block_size=settings.block_size)
        self.load = EngineLoad()
        self.cache = PrefixCache(settings.simulated.kv_blocks, settings.block_size)
        self._slots = asyncio.Semaphore(settings.max_num_seqs)
        self._aborts: dict[str, asyncio.Event] = {}
        self._waiting: list[_Waiting] = []
        self._arrivals = itertools.count()
        self._prefilling = False
        self._dead = asyncio.Event()
        self._cause = ""

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        prompt = request.prompt_token_ids
        if len(prompt) >= self.limits.max_model_len:
            raise PromptTooLong
        if self._dead.is_set():
            raise EngineDead(self._cause)
        aborted = self._aborts[request.request_id] = asyncio.Event()
        chain = self.cache.chain(prompt, request.salt)
        held: list[int] = []
        try:
            self.load.waiting_requests += 1
            try:
                await self._slots.acquire()
            finally:
                self.load.waiting_requests -= 1
            self.load.running_requests += 1
            try:
                await self._take_prefill_lane(request.priority)
                try:
                    scheduled_at = time.monotonic()
                    cached_tokens = self.cache.match(chain, len(prompt))
                    computed = len(prompt) - cached_tokens
                    await self._pause(computed / self._simulated.prefill_tokens_per_s, aborted)
                    self.cache.hold(chain)
                    held = chain
                    self._report_usage()
                finally:
                    self._leave_prefill_lane()
                prefill: Prefill | None = Prefill(scheduled_at, time.monotonic(), cached_tokens)
                reply = self._simulated.reply.replace("{prompt_tokens}", str(len(prompt)))
                reply = reply.replace("{cached_tokens}", str(cached_tokens))
                for token_ids, text, finish_reason in self._answer(reply, request):
                    if prefill is None:
                        await self._pause(self._simulated.token_interval_ms / 1_000, aborted)
                    yield Delta(token_ids, text, finish_reason, prefill)
                    prefill = None
            finally:
                self.load.running_requests -= 1
                self._slots.release()
        finally:
            self.cache.release(held)
            self._report_usage()
            del self._aborts[request.request_id]

    def _answer(
        self, reply: str, request: GenerateRequest
    ) -> Iterator[tuple[tuple[int, ...], str, FinishReason | None]]:
        """The reply's tokens with the text each completes; a stop string ends it and never shows."""
        sampling = request.sampling
        token_ids = self._vocabulary.encode(reply)
        if sampling.ignore_eos:
            token_ids = list(itertools.islice(itertools.cycle(token_ids), sampling.max_tokens))
        shown = ""
        n_tokens = min(len(token_ids), sampling.max_tokens)
        longest_stop = max((len(stop) for stop in sampling.stop), default=0)
        for position in range(1, n_tokens + 1):
            token = (token_ids[position - 1],)
            text = self._vocabulary.decode(token_ids[:position])
            cut = min((at for stop in sampling.stop if (at := text.find(stop)) >= 0), default=-1)
            if cut >= 0:
                yield token, text[len(shown) : cut], "stop"
                return
            last = position == n_tokens
            if not last:
                text = text.rstrip(_INCOMPLETE)
                text = text[: max(len(shown), len(text) - max(0, longest_stop - 1))]
            finish: FinishReason | None = None
            if last:
                finish = "stop" if len(token_ids) < sampling.max_tokens else "length"
            yield token, text[len(shown) :], finish
            shown = text

    async def _take_prefill_lane(self, priority: int) -> None:
        if not self._prefilling:
            self._prefilling = True
            return
        waiting = _Waiting(priority, next(self._arrivals), asyncio.Event())
        heapq.heappush(self._waiting, waiting)
        try:
            await waiting.ready.wait()
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                heapq.heapify(self._waiting)
            else:
                self._leave_prefill_lane()
            raise

    def _leave_prefill_lane(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting).ready.set()
        else:
            self._prefilling = False

    async def _pause(self, seconds: float, aborted: asyncio.Event) -> None:
        """Sleep, but wake for an abort or the engine's death."""
        if not aborted.is_set() and not self._dead.is_set():
            death = asyncio.ensure_future(self._dead.wait())
            abort = asyncio.ensure_future(aborted.wait())
            try:
                await asyncio.wait((death, abort), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                death.cancel()
                abort.cancel()
        if self._dead.is_set():
            raise EngineDead(self._cause)
        if aborted.is_set():
            raise RequestAborted

    def _report_usage(self) -> None:
        self.load.kv_cache_usage = self.cache.blocks_in_use / self.cache.n_blocks

    async def abort(self, request_id: str) -> None:
        if event := self._aborts.get(request_id):
            event.set()

    async def died(self) -> str:
        await self._dead.wait()
        return self._cause

    def die(self, cause: str) -> None:
        """For tests: what `kill -9` is to the real engine."""
        self._cause = cause
        self._dead.set()

    async def close(self) -> None:
        self.die("the engine was stopped")

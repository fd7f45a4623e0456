"""An engine that computes nothing: fixed prefill rate, fixed token interval, and a true block-wise prefix cache.

It measures the gateway alone and lets tests run in milliseconds; it is never the default. As in vLLM: prompts
are prefilled one after the other, by priority; tokens come at their pace whether or not they are read, and what
is not read yet is merged. Every token is due at a fixed time after the first, so lateness does not add up.
What was computed of a prompt that is given up stays cached. A delay before the first token, if one is set, runs for all prompts side by side, after their prefill.
For tests it fails on schedule: `Fault`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal

from server.engine.mailbox import Inbox, Mailbox
from server.engine.prefix_cache import PrefixCache
from server.engine.protocol import (
    Delta,
    EngineDead,
    EngineLimits,
    EngineLoad,
    GenerateRequest,
    Prefill,
    PromptTooLong,
    RequestAborted,
    RequestFailed,
)
from server.engine.script import Answer, Script, Vocabulary
from server.sections.engine import EngineSettings


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to befall one request once it has sent so many tokens; 0: before the first."""

    kind: Literal["raise", "stall", "die"]
    """`raise`: this request fails. `stall`: the engine stands still. `die`: the engine is gone."""
    after_tokens: int = 0


@dataclass(eq=False, slots=True)
class _Run:
    """One request on its way through the engine."""

    request: GenerateRequest
    chain: list[int]
    fault: Fault | None
    inbox: Inbox
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    answers: list[Answer] = field(default_factory=list)
    scheduled_at: float = 0.0
    cached_tokens: int = 0
    next_token_at: float = 0.0
    tokens_sent: int = 0
    timer: asyncio.Handle | None = None


class SimulatedEngine:
    """See `Engine`."""

    def __init__(self, settings: EngineSettings, vocabulary: Vocabulary) -> None:
        self._simulated = settings.simulated
        self._first_token_s = settings.simulated.first_token_ms / 1_000
        self._interval_s = settings.simulated.token_interval_ms / 1_000
        self.script = Script(settings.simulated.reply, vocabulary)
        """Tests may put another in its place."""
        self.limits = EngineLimits(settings.max_model_len, settings.block_size, settings.simulated.kv_blocks)
        self.load = EngineLoad()
        self.cache = PrefixCache(settings.simulated.kv_blocks, settings.block_size)
        self.faults: deque[Fault] = deque()
        """The next requests get one each."""
        self._free_slots = settings.max_num_seqs
        self._runs: dict[str, _Run] = {}
        self._waiting: list[tuple[int, int, _Run]] = []
        self._arrivals = itertools.count()
        self._prefilling: _Run | None = None
        self._stalled: list[_Run] | None = None
        self._death: asyncio.Event = asyncio.Event()
        self._cause = ""

    async def start(self) -> None:
        self.load.stepped_at = time.monotonic()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        mailbox = Mailbox()
        self.submit(request, mailbox)
        unfinished = request.sampling.n
        try:
            while unfinished:
                delta = await mailbox.get()
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            self.withdraw(request.request_id)

    def submit(self, request: GenerateRequest, inbox: Inbox) -> None:
        """`generate` for a reader that wants each token in the moment it is made, without a task in between.

        Raises what `generate` does before anything is computed. The inbox may withdraw from within `put`.
        """
        if len(request.prompt_token_ids) >= self.limits.max_model_len:
            raise PromptTooLong
        if self._death.is_set():
            raise EngineDead(self._cause)
        fault = self.faults.popleft() if self.faults else None
        run = _Run(request, self.cache.chain(request.prompt_token_ids, request.salt), fault, inbox)
        self._runs[request.request_id] = run
        heapq.heappush(self._waiting, (request.priority, next(self._arrivals), run))
        self.load.waiting_requests += 1
        self._schedule()

    def withdraw(self, request_id: str) -> None:
        """The reader has left: end its request in silence. Unknown ids are ignored."""
        if run := self._runs.get(request_id):
            self._leave(run)

    def _schedule(self) -> None:
        """Prefill the first in line, when the lane and enough slots are free."""
        while self._waiting and self._prefilling is None and self._stalled is None:
            run = self._waiting[0][2]
            if run.request.sampling.n > self._free_slots:
                return
            heapq.heappop(self._waiting)
            self.load.waiting_requests -= 1
            self.load.running_requests += 1
            self._free_slots -= run.request.sampling.n
            self._prefilling = run
            n_prompt_tokens = len(run.request.prompt_token_ids)
            run.cached_tokens = self.cache.match(run.chain, n_prompt_tokens)
            run.scheduled_at = time.monotonic()
            prefill_s = (n_prompt_tokens - run.cached_tokens) / self._simulated.prefill_tokens_per_s
            if prefill_s:
                run.timer = run.loop.call_later(prefill_s, self._finish_prefill, run)
            else:  # at an infinite rate nobody waits for the lane
                self._prepare(run)
                run.timer = run.loop.call_later(self._first_token_s, self._step, run)

    def _finish_prefill(self, run: _Run) -> None:
        if self._stalled is not None:
            self._stalled.append(run)
            return
        self._prepare(run)
        if self._first_token_s:
            run.timer = run.loop.call_later(self._first_token_s, self._step, run)
        else:
            self._step(run)
        self._schedule()

    def _prepare(self, run: _Run) -> None:
        """The lane is free again, the prompt in the cache, its answers ready to be told."""
        self._prefilling = None
        self.cache.hold(run.chain)
        self._report_usage()
        indexes = range(run.request.sampling.n)
        run.answers = [self.script.answer(run.request, run.cached_tokens, index) for index in indexes]

    def _step(self, run: _Run) -> None:
        """One token of every answer, and a date for the next."""
        if self._stalled is not None:
            self._stalled.append(run)
            return
        if run.fault is not None and run.tokens_sent >= run.fault.after_tokens:
            fault, run.fault = run.fault, None
            self._suffer(run, fault)
            return
        prefill: Prefill | None = None
        if not run.tokens_sent:
            prefill = Prefill(run.scheduled_at, time.monotonic(), run.cached_tokens)
            run.next_token_at = run.loop.time()
        finished = False
        for answer in run.answers:
            delta = answer.next_delta(prefill)
            prefill = None
            run.inbox.put(delta)
            finished = finished or delta.finish_reason is not None
        run.tokens_sent += 1
        self.load.stepped_at = time.monotonic()
        if finished:
            run.answers = [answer for answer in run.answers if not answer.is_over]
        if run.request.request_id not in self._runs:  # its reader withdrew from within `put`
            return
        if run.answers:
            run.next_token_at += self._interval_s
            run.timer = run.loop.call_at(run.next_token_at, self._step, run)
        else:
            self._leave(run)

    def _leave(self, run: _Run) -> None:
        """Free whatever the request holds, wherever it stands. Idempotent."""
        if self._runs.pop(run.request.request_id, None) is None:
            return
        if run.timer is None:
            self._waiting = [entry for entry in self._waiting if entry[2] is not run]
            heapq.heapify(self._waiting)
            self.load.waiting_requests -= 1
            return
        run.timer.cancel()
        self.load.running_requests -= 1
        self._free_slots += run.request.sampling.n
        if self._prefilling is run:
            self._prefilling = None
            self._keep_computed(run)
        else:
            self.cache.release(run.chain)
        self._report_usage()
        if not self._death.is_set():
            self._schedule()

    def _keep_computed(self, run: _Run) -> None:
        """Whole blocks of a prefill that was broken off, as in vLLM, whose chunks are cached one by one."""
        seconds = time.monotonic() - run.scheduled_at
        n_tokens = run.cached_tokens + int(seconds * self._simulated.prefill_tokens_per_s)
        computed = run.chain[: n_tokens // self.limits.block_size]
        self.cache.hold(computed)
        self.cache.release(computed)

    def _suffer(self, run: _Run, fault: Fault) -> None:
        if fault.kind == "raise":
            run.inbox.fail(RequestFailed("a fault that was asked for"))
            self._leave(run)
        elif fault.kind == "stall":
            self.stall()
            self._step(run)
        else:
            self.die("a fault that was asked for")

    def _report_usage(self) -> None:
        self.load.kv_cache_usage = self.cache.blocks_in_use / self.cache.n_blocks

    async def abort(self, request_id: str) -> None:
        if run := self._runs.get(request_id):
            run.inbox.fail(RequestAborted(request_id))
            self._leave(run)

    async def died(self) -> str:
        await self._death.wait()
        return self._cause

    def die(self, cause: str) -> None:
        """For tests: what `kill -9` is to the real engine."""
        self._cause = cause
        self._death.set()
        for run in tuple(self._runs.values()):
            run.inbox.fail(EngineDead(cause))
            self._leave(run)

    def stall(self) -> None:
        """For tests: what SIGSTOP is to the real engine."""
        if self._stalled is None:
            self._stalled = []

    def resume(self) -> None:
        """For tests: what SIGCONT is to the real engine."""
        stalled, self._stalled = self._stalled or [], None
        for run in stalled:
            if run.request.request_id not in self._runs:
                continue
            if run is self._prefilling:
                self._finish_prefill(run)
            else:
                run.next_token_at = run.loop.time()
                self._step(run)
        self._schedule()

    async def close(self) -> None:
        self.die("the engine was stopped")

"""Keeps one engine running: starts it, notices its death or its standing still, starts a new one after a pause.

Alive means forward progress. A process that answers a ping may compute nothing: while requests are open the
engine has to finish steps, and while none are it is asked for one token now and then (a canary).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from server.engine.prefix_cache import PrefixCache
from server.engine.protocol import (
    Delta,
    Engine,
    EngineDead,
    EngineLimits,
    EngineLoad,
    EngineStatus,
    GenerateRequest,
    Phase,
    RequestAborted,
    Sampling,
)
from server.sections.engine import EngineSettings

log = logging.getLogger(__name__)

_LONGEST_BACKOFF_S = 60.0
_WATCHES_PER_STALL = 20


class SupervisedEngine:
    """`start` returns at once; `status` tells how far the engine is. Otherwise the `Engine` it supervises."""

    def __init__(self, make_engine: Callable[[], Engine], settings: EngineSettings) -> None:
        self._make_engine = make_engine
        self._settings = settings
        self._engine: Engine | None = None
        self._seen = PrefixCache(1, settings.block_size)
        self._phase: Phase = "stopped"
        self._why = ""
        self._since = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._open: set[str] = set()
        self._aborted: set[str] = set()
        self._busy_since = 0.0
        self._canaries = itertools.count()
        self.restarts = 0

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep_running(), name="engine-supervisor")

    @property
    def status(self) -> EngineStatus:
        waited_s = time.monotonic() - self._since
        detail = {
            "starting": f"loading engine, {waited_s:.0f} s",
            "ready": "",
            "stalled": f"the engine stands still, for {waited_s + self._settings.stall_s:.0f} s now",
            "dead": f"engine down for {waited_s:.0f} s ({self._why}); it is being restarted",
            "stopped": "engine stopped",
        }[self._phase]
        return EngineStatus(self._phase, detail)

    @property
    def limits(self) -> EngineLimits:
        """Of the engine that runs or ran last."""
        if self._engine is None:
            raise EngineDead(self.status.detail)
        return self._engine.limits

    @property
    def load(self) -> EngineLoad:
        return self._engine.load if self._engine and self._running else EngineLoad()

    @property
    def _running(self) -> bool:
        return self._phase in ("ready", "stalled")

    async def ready(self) -> None:
        await self._ready.wait()

    def prefill_tokens(self, prompt_token_ids: Sequence[int], salt: str) -> int:
        """How many tokens of this prompt the engine is likely to compute: those of no prompt it has had."""
        chain = self._seen.chain(prompt_token_ids, salt)
        return len(prompt_token_ids) - self._seen.match(chain, len(prompt_token_ids))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        if self._engine is None or not self._running:
            raise EngineDead(self.status.detail)
        engine = self._engine
        if not self._open:
            self._busy_since = time.monotonic()
        self._open.add(request.request_id)
        try:
            async with contextlib.aclosing(engine.generate(request)) as stream:
                async for delta in stream:
                    if delta.prefill is not None:
                        self._remember(request)
                    yield delta
        except EngineDead as error:
            # The keeper is about to notice; nobody may be sent to this engine until then.
            if engine is self._engine and self._running:
                self._enter("dead", str(error))
            raise
        except RequestAborted as error:
            if request.request_id not in self._aborted:
                raise EngineDead("the engine was closed") from error
            raise
        finally:
            self._open.discard(request.request_id)
            self._aborted.discard(request.request_id)

    def _remember(self, request: GenerateRequest) -> None:
        chain = self._seen.chain(request.prompt_token_ids, request.salt)
        self._seen.hold(chain)
        self._seen.release(chain)

    async def abort(self, request_id: str) -> None:
        if self._engine is not None and self._running and request_id in self._open:
            self._aborted.add(request_id)
            await self._engine.abort(request_id)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._enter("stopped")
        if self._engine is not None:
            await self._engine.close()
            self._engine = None

    async def _keep_running(self) -> None:
        backoff_s = self._settings.restart_backoff_s
        while True:
            self._enter("starting")
            self._engine = self._make_engine()
            started_at = time.monotonic()
            try:
                await self._engine.start()
                limits = self._engine.limits
                # What was open on the engine before says nothing about this one.
                self._open.clear()
                self._seen = PrefixCache(limits.kv_blocks, limits.block_size)
                self._enter("ready")
                ready_at = time.monotonic()
                log.info("engine ready after %.1f s", ready_at - started_at)
                why = await self._watch(self._engine)
                if time.monotonic() - ready_at > _LONGEST_BACKOFF_S:
                    backoff_s = self._settings.restart_backoff_s
            except EngineDead as error:
                why = str(error)
            self._enter("dead", why)
            log.error("engine died: %s; next start in %.0f s", why, backoff_s)
            await self._engine.close()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            self.restarts += 1

    async def _watch(self, engine: Engine) -> str:
        """Wait until the engine has died or stood still for too long; returns why."""
        settings = self._settings
        death = asyncio.ensure_future(engine.died())
        canary: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.wait((death,), timeout=settings.stall_s / _WATCHES_PER_STALL)
                if death.done():
                    return death.result()
                if self._phase == "dead":
                    continue
                silence_s = self._silence_s()
                if not self._open and silence_s > settings.canary_s and (canary is None or canary.done()):
                    canary = asyncio.create_task(self._ask_for_a_token(), name="engine-canary")
                if self._phase == "stalled":
                    if engine.load.stepped_at > self._since:
                        log.info("the engine goes on")
                        self._enter("ready")
                    elif time.monotonic() - self._since > settings.stall_restart_s:
                        return "it stood still"
                elif self._open and silence_s > settings.stall_s:
                    log.error("the engine has finished no step for %.0f s", silence_s)
                    self._enter("stalled")
        finally:
            death.cancel()
            if canary is not None:
                canary.cancel()

    def _silence_s(self) -> float:
        """Since the engine last finished a step or, when that is later, was last given work while idle."""
        if self._engine is None:
            return 0.0
        last = self._engine.load.stepped_at
        if self._open:
            last = max(last, self._busy_since)
        return time.monotonic() - last

    async def _ask_for_a_token(self) -> None:
        request = GenerateRequest(
            f"canary-{next(self._canaries)}", [0], Sampling(max_tokens=1), salt="canary"
        )
        with contextlib.suppress(Exception):  # the keeper sees for itself
            async with contextlib.aclosing(self.generate(request)) as deltas:
                async for _ in deltas:
                    pass

    def _enter(self, phase: Phase, why: str = "") -> None:
        self._phase, self._why, self._since = phase, why, time.monotonic()
        if phase == "ready":
            self._ready.set()
        else:
            self._ready.clear()

"""Keeps one engine running: starts it, notices its death, starts a new one after a growing pause."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable

from server.engine.protocol import (
    Delta,
    Engine,
    EngineDead,
    EngineLimits,
    EngineLoad,
    EngineStatus,
    GenerateRequest,
    Phase,
)

log = logging.getLogger(__name__)

_LONGEST_BACKOFF_S = 60.0


class SupervisedEngine:
    """`start` returns at once; `status` tells how far the engine is. Otherwise the `Engine` it supervises."""

    def __init__(self, make_engine: Callable[[], Engine], backoff_s: float) -> None:
        self._make_engine = make_engine
        self._backoff_s = backoff_s
        self._engine: Engine | None = None
        self._phase: Phase = "stopped"
        self._why = ""
        self._since = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.restarts = 0

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep_running(), name="engine-supervisor")

    @property
    def status(self) -> EngineStatus:
        waited_s = time.monotonic() - self._since
        detail = {
            "starting": f"loading engine, {waited_s:.0f} s",
            "ready": "",
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
        return self._engine.load if self._engine and self._phase == "ready" else EngineLoad()

    async def ready(self) -> None:
        await self._ready.wait()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        if self._engine is None or self._phase != "ready":
            raise EngineDead(self.status.detail)
        engine = self._engine
        try:
            async with contextlib.aclosing(engine.generate(request)) as stream:
                async for delta in stream:
                    yield delta
        except EngineDead as error:
            # The keeper is about to notice; nobody may be sent to this engine until then.
            if engine is self._engine and self._phase == "ready":
                self._enter("dead", str(error))
            raise

    async def abort(self, request_id: str) -> None:
        if self._engine is not None and self._phase == "ready":
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
        backoff_s = self._backoff_s
        while True:
            self._enter("starting")
            self._engine = self._make_engine()
            started_at = time.monotonic()
            try:
                await self._engine.start()
                self._enter("ready")
                ready_at = time.monotonic()
                log.info("engine ready after %.1f s", ready_at - started_at)
                why = await self._engine.died()
                if time.monotonic() - ready_at > _LONGEST_BACKOFF_S:
                    backoff_s = self._backoff_s
            except EngineDead as error:
                why = str(error)
            self._enter("dead", why)
            log.error("engine died: %s; next start in %.0f s", why, backoff_s)
            await self._engine.close()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            self.restarts += 1

    def _enter(self, phase: Phase, why: str = "") -> None:
        self._phase, self._why, self._since = phase, why, time.monotonic()
        if phase == "ready":
            self._ready.set()
        else:
            self._ready.clear()

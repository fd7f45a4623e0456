"""Emit: deltas become frames on the socket; whatever ends a turn becomes its one ending.

Divergences from `EventSourceResponse`, which keeps heartbeats, the disconnect and the grace:
- A first frame that is there goes out before the tasks are started that watch over the rest.
- It opens a cancel scope for every frame, which costs more than the frame. Here a frame that the socket takes at
  once is written by the one who renders it; only when the reader lags the frame goes the library's way.
- Its send timeout is not used: it cuts off a slow reader that reads on. `connection.py` looks for progress.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from server.api import frames
from server.api.connection import Outlet
from server.api.schema import ChatRequest
from server.errors import FirstwordError, Internal
from server.parts import Parts
from server.turn import Turn, run_turn

log = logging.getLogger(__name__)


class Emission:
    """One turn on its way to the socket."""

    def __init__(self, chat: ChatRequest, turn: Turn, parts: Parts, outlet: Outlet) -> None:
        self._chat = chat
        self._parts = parts
        self.turn = turn
        self.outlet = outlet
        self._finished = False
        self.over = False
        """Its last event is on the way: no heartbeat follows it."""
        self.begun = False
        """The response has: an error is an event now, no status any more."""

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The frames that are not written here: the first, the last, and all that a lagging reader has to wait for."""
        try:
            async with aclosing(self._rendered()) as rendered:
                async for frame in rendered:
                    yield frame
        except FirstwordError as error:
            if not self.begun:
                raise
            yield self._ending(error)
        except Exception:
            if not self.begun:
                raise
            log.exception("turn %s failed", self.turn.turn_id)
            message = f"an error of ours; its log entry names turn {self.turn.turn_id}"
            yield self._ending(Internal(message))

    def _ending(self, error: FirstwordError) -> bytes:
        """The error event; none after the finish, where a second ending would be worse than a missing usage."""
        self.over = True
        return frames.DONE if self._finished else frames.error_frame(error) + frames.DONE

    async def _rendered(self) -> AsyncGenerator[bytes, None]:
        turn, outlet = self.turn, self.outlet
        render = frames.Frames(turn, self._parts.model_name, self._chat.service_tier)
        unfinished = turn.request.sampling.n
        opened = spoken = False
        async with aclosing(run_turn(turn, self._parts)) as deltas:
            async for delta in deltas:
                frame = render.content(delta)
                if not spoken and (delta.text or delta.reasoning or delta.tool_calls or delta.refusal):
                    spoken = True
                    turn.clock.speaks()
                if not opened:
                    opened = True
                    yield render.role() + frame
                    turn.clock.sent()
                elif frame:
                    if outlet.is_full:
                        yield frame
                    else:
                        await outlet.send({"type": "http.response.body", "body": frame, "more_body": True})
                    turn.clock.sent()
                if delta.finish_reason is not None:
                    unfinished -= 1
                    self._finished = not unfinished
                    yield render.finish(delta.index, delta.finish_reason, last=not unfinished)
        self.over = True
        yield render.usage() + frames.DONE if self._chat.include_usage else frames.DONE


class TurnStream(EventSourceResponse):
    """The response of a streamed turn. The turn ends with it, also when the client left before its first frame."""

    def __init__(
        self,
        emission: Emission,
        first: asyncio.Future[bytes],
        body: AsyncGenerator[bytes, None],
        **options: Any,
    ) -> None:
        super().__init__(body, **options)
        self._emission, self._first, self._body = emission, first, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        emission = self._emission
        emission.begun = True
        try:
            if self._first.done() and not emission.outlet.is_full:
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                await send({"type": "http.response.body", "body": self._first.result(), "more_body": True})
                emission.turn.clock.sent()
                await super().__call__(scope, receive, self._rest(send))
            else:
                self.body_iterator = _preceded(self._first, self._body)
                await super().__call__(scope, receive, self._rest(send, starts=True))
        finally:
            await abandon(self._first, self._body)

    def _rest(self, send: Send, *, starts: bool = False) -> Send:
        """What the library sends, without a start that is out already and heartbeats that nobody waits for.

        One that waited for a lagging reader could be let through after the last event.
        """
        emission = self._emission

        async def send_rest(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            is_heartbeat = message.get("body") == frames.HEARTBEAT
            is_idle = is_heartbeat and (emission.over or emission.outlet.is_full)
            if (starts or not is_start) and not is_idle:
                await send(message)

        return send_rest


async def abandon(first: asyncio.Future[bytes], body: AsyncGenerator[bytes, None]) -> None:
    """End whatever the stream was doing. A generator that is running cannot be closed, so its task goes first."""
    if not first.done():
        first.cancel()
        await asyncio.wait((first,))
    await body.aclose()


async def _preceded(
    first: asyncio.Future[bytes], body: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    yield await first
    async for frame in body:
        yield frame

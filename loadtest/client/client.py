"""Holds conversations with one server: each turn when it is due, with the replies the model really gave before it.

A turn's clock starts when it was due, whatever this client was doing then. Its wait for a slot (`held`) and the client's own
lateness (`late`) are told apart, and both are part of its latencies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import perf_counter

import msgspec

from loadtest.client.address import parse_url
from loadtest.client.clock import Clock
from loadtest.client.connections import Connections
from loadtest.client.prewarm import Prewarm
from loadtest.client.recorder import Recorder
from loadtest.client.request import Requests
from loadtest.figures.turn_result import TurnResult
from loadtest.plan import Share
from loadtest.workload.conversation import Conversation, Message
from loadtest.workload.distribution import parse_distribution

_TELLING_CHARS = 4
"""Of a key's beginning; fewer are in many a word."""


class Client:
    """`begun_at` is when the stage began, `perf_counter` seconds; set it before the first conversation."""

    def __init__(self, share: Share, clock: Clock, on_turn: Callable[[TurnResult], None]) -> None:
        plan = share.plan
        address = parse_url(plan.url)
        self.begun_at = 0.0
        self.events = 0
        self.under_way = 0
        """Turns that are due and not over."""
        self.unsent = 0
        """Turns that a failed turn before them, or the end of the run, left unsent."""
        self.connections = Connections(address, share.ips, keep=plan.keep_connections)
        self._requests = Requests(address, plan, share.api_key)
        self.prewarm = Prewarm(plan.type_ahead, clock, self.connections, self._requests)
        self._plan = plan
        self._api_key = share.api_key
        self._clock = clock
        self._on_turn = on_turn
        self._think = None if plan.think is None else parse_distribution(plan.think, "--think")
        self._slots: asyncio.Semaphore | None = None
        if plan.is_open_loop and share.concurrency is not None:
            self._slots = asyncio.Semaphore(share.concurrency)

    def lead_s(self, conversation: Conversation) -> float:
        """How long before a conversation is due its first question begins to be typed."""
        return self.prewarm.typing_s(conversation.turns[0].user)

    def draws(self, of: str) -> random.Random | None:
        """A source of pauses that is the same in every run; none without pauses, since it takes time to make."""
        return None if self._think is None else random.Random(f"{self._plan.seed} {of}")

    def pause_s(self, draws: random.Random | None) -> float:
        """Until a user has read the reply and thought of what to say next."""
        return 0.0 if self._think is None or draws is None else self._think.draw(draws)

    async def hold(
        self, conversation: Conversation, holding: int, due: float, *, warmup: bool = False
    ) -> float:
        """All turns in order; the first is due at `due`. Returns when the client was free again.

        A failed turn ends the conversation: without its reply the next would be another conversation.
        """
        history = list(conversation.preamble)
        draws = self.draws(f"holding {holding}")
        free_at = due
        unsent = len(conversation.turns)
        try:
            for number, turn in enumerate(conversation.turns, start=1):
                if number > 1:
                    pause_s = self.pause_s(draws) if turn.think_s is None else turn.think_s
                    due = free_at + pause_s + self.prewarm.typing_s(turn.user)
                if self._is_over(due):
                    break
                with self.prewarm.typing(history, turn.user, due):
                    history.append(Message("user", turn.user))
                    request_id = f"{self._plan.request_prefix}-{holding}-{number}"
                    request = self._requests.completion(history, turn.max_tokens, request_id)
                    await self._clock.until(due)
                unsent -= 1
                in_warmup = warmup or due - self.begun_at < self._plan.warmup_s
                recorder = Recorder(due)
                self.under_way += 1
                try:
                    await self._stream(request, recorder)
                finally:
                    # By the stamp of its last bytes: a client that is busy must not make users begin later.
                    free_at = perf_counter() if recorder.ended_at is None else recorder.ended_at
                    self.under_way -= 1
                    self.events += recorder.events
                    result = recorder.result(
                        conversation_id=conversation.conversation_id,
                        holding=holding,
                        turn=number,
                        request_id=request_id,
                        warmup=in_warmup,
                        began=self.begun_at,
                    )
                    self._on_turn(self._redacted(result))
                if recorder.failure is not None:
                    break
                history.append(Message("assistant", "".join(recorder.reply)))
        finally:
            if not warmup:
                self.unsent += unsent
        return free_at

    async def _stream(self, request: bytes, recorder: Recorder) -> None:
        """One streamed chat completion, to its end or its failure. Cancelled, it is unfinished."""
        timeout_s = self._plan.timeout_s
        try:
            async with (
                asyncio.timeout(recorder.due + timeout_s - perf_counter()),
                AsyncExitStack() as held,
            ):
                if self._slots is not None:
                    waiting_since = perf_counter()
                    try:
                        await held.enter_async_context(self._slots)
                    finally:  # a turn that never got a slot was held too, not late
                        recorder.held_s = perf_counter() - waiting_since
                await self._exchange(request, recorder)
        except TimeoutError:
            recorder.give_up(perf_counter(), "timeout", f"not finished {timeout_s:g} s after it was due")
        except asyncio.CancelledError:
            recorder.give_up(perf_counter(), "unfinished", "the run was stopped")
            raise

    async def _exchange(self, request: bytes, recorder: Recorder) -> None:
        connection = self.connections.idle()
        recorder.sent_at = perf_counter()
        if connection is None:
            try:
                connection = await self.connections.open()
            except OSError as error:
                recorder.give_up(perf_counter(), "connection", str(error) or type(error).__name__)
                return
            recorder.connect_s = perf_counter() - recorder.sent_at
        try:
            connection.send(request, recorder)
            await recorder.finished
        finally:
            self.connections.give_back(connection)

    def _is_over(self, due: float) -> bool:
        """No turn begins after the stage's time."""
        duration_s = self._plan.duration_s
        return duration_s is not None and due - self.begun_at >= duration_s

    def _redacted(self, result: TurnResult) -> TurnResult:
        """Some servers repeat the key they refuse; a report must not."""
        if not self._api_key or not result.detail:
            return result
        return msgspec.structs.replace(result, detail=_without(self._api_key, result.detail))


def _without(key: str, detail: str) -> str:
    """A detail that was cut short may end in the middle of the key."""
    detail = detail.replace(key, "[API key]")
    uncut = detail.removesuffix("…")
    for length in range(len(key) - 1, _TELLING_CHARS - 1, -1):
        if uncut.endswith(key[:length]):
            return uncut[:-length] + "[API key]"
    return detail

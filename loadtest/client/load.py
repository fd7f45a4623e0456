"""A process's share of a stage: its conversations begun when they are due (open loop) or one after the other (closed)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from loadtest.arrivals import Arrivals, due_times, trace_due_times
from loadtest.client.client import Client
from loadtest.client.clock import Clock
from loadtest.plan import Share
from loadtest.workload.conversation import Conversation
from loadtest.workload.popularity import hold

T = TypeVar("T")

_WARMUP_AT_A_TIME = 4
"""In an open loop; a closed loop warms up as wide as it is."""


class Load:
    """Every process draws the same sequence of conversations and arrivals and takes each n-th of them."""

    def __init__(self, share: Share, client: Client, clock: Clock) -> None:
        self._share = share
        self._plan = share.plan
        self._client = client
        self._clock = clock

    async def warm_up(self, now: float) -> None:
        """Hold this process's share of the warm-up conversations, all due now."""
        waiting = self._mine(islice(self._deck(), self._plan.warmup_conversations))
        at_a_time = _WARMUP_AT_A_TIME if self._plan.is_open_loop else self._share.concurrency or 1

        async def user() -> None:
            due = now
            for number, conversation in waiting:
                due = await self._client.hold(conversation, number, due, warmup=True)

        self._client.begun_at = now
        async with asyncio.TaskGroup() as group:
            for _ in range(at_a_time):
                group.create_task(user())

    async def run(self, begun_at: float) -> None:
        """The stage. Returns when its last turn has ended; cancelled, every open turn is unfinished."""
        self._client.begun_at = begun_at
        if self._plan.arrivals is None:
            await self._run_closed(begun_at)
        else:
            await self._run_open(begun_at, self._plan.arrivals)

    async def _run_closed(self, begun_at: float) -> None:
        """A fixed number at a time; the end of one lets the next begin.

        A target that slows down is asked less often: a closed loop shows what so many patient users see.
        """
        waiting = self._mine(self._stage(), self._plan.warmup_conversations)
        duration_s = self._plan.duration_s
        draws = self._client.draws(f"process {self._share.process}")

        async def user() -> None:
            due = begun_at
            for number, conversation in waiting:
                if duration_s is not None and due - begun_at >= duration_s:
                    return
                due += self._client.lead_s(conversation)
                due = await self._client.hold(conversation, number, due)
                due += self._client.pause_s(draws)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._share.concurrency or 1):
                group.create_task(user())

    async def _run_open(self, begun_at: float, arrivals: Arrivals) -> None:
        """Each is begun when it is due, however many others are under way."""
        async with asyncio.TaskGroup() as group:
            due_conversations = self._mine(self._arrivals(arrivals), self._plan.warmup_conversations)
            for number, (due_s, conversation) in due_conversations:
                due = begun_at + due_s
                await self._clock.until(due - self._client.lead_s(conversation))
                group.create_task(self._client.hold(conversation, number, due))

    def _arrivals(self, arrivals: Arrivals) -> Iterator[tuple[float, Conversation]]:
        plan = self._plan
        if arrivals.kind == "trace":
            conversations = plan.conversations[: plan.n_conversations]
            due = zip(trace_due_times(conversations, arrivals.speed), conversations, strict=True)
        else:
            due = zip(due_times(arrivals, plan.seed), self._stage(), strict=False)
        for due_s, conversation in due:
            if plan.duration_s is not None and due_s >= plan.duration_s:
                return
            yield due_s, conversation

    def _stage(self) -> Iterator[Conversation]:
        """The stage's conversations in the order in which they begin; endless when only time ends it."""
        plan, first = self._plan, self._plan.warmup_conversations
        if plan.n_conversations is not None:
            return islice(self._deck(), first, first + plan.n_conversations)
        if plan.duration_s is not None:
            return islice(self._deck(), first, None)
        return islice(self._deck(), first, max(first, len(plan.conversations)))

    def _deck(self) -> Iterator[Conversation]:
        return hold(self._plan.conversations, self._plan.popularity, self._plan.seed)

    def _mine(self, sequence: Iterator[T], first: int = 0) -> Iterator[tuple[int, T]]:
        """Numbered on from `first`, so that no holding of the stage has the number of one that warmed up."""
        share = self._share
        return (
            numbered
            for numbered in enumerate(sequence, first)
            if numbered[0] % share.processes == share.process
        )

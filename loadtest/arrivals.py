"""When conversations begin. Closed loop: a fixed number are held at a time, and the end of one lets the next begin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from loadtest.client import Client
from loadtest.measure import TurnResult
from loadtest.workload import Conversation


async def closed_loop(
    client: Client,
    conversations: Iterable[Conversation],
    concurrency: int,
    on_turn: Callable[[TurnResult], None],
) -> None:
    """Hold all conversations, `concurrency` at a time. The first ones are all due when the phase began.

    A target that slows down is asked less often: a closed loop shows what so many patient users see, not what a fixed
    rate of arrivals would. Cancellation ends every conversation.
    """
    waiting = iter(conversations)
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_hold(client, waiting, on_turn))


async def _hold(
    client: Client, waiting: Iterator[Conversation], on_turn: Callable[[TurnResult], None]
) -> None:
    due = client.began
    for conversation in waiting:
        due = await client.converse(conversation, due, on_turn)

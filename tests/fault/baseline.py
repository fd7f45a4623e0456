"""What a gateway holds: nothing of a turn may be left once it is over."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fault.client import Connection
from gateways import Gateway

_SETTLE_S = 15.0


def held(gateway: Gateway) -> dict[str, float]:
    """What is held of turns, all of it zero when there are none."""
    admission, engine = gateway.parts.admission, gateway.engine
    return {
        "running turns": admission.running_turns,
        "queued turns": admission.queued_turns,
        "prefill tokens": admission.prefill_tokens,
        "draining turns": gateway.parts.drain.running_turns,
        "engine requests": engine.load.running_requests,
        "waiting requests": engine.load.waiting_requests,
        "KV blocks": engine.cache.blocks_in_use,
    }


async def settled(gateway: Gateway, within_s: float = _SETTLE_S) -> float:
    """Wait until nothing of any turn is held; returns the seconds it took."""
    began_at = time.monotonic()
    while any(now := held(gateway).values()):
        if time.monotonic() - began_at > within_s:
            left = {name: value for name, value in held(gateway).items() if value}
            raise AssertionError(f"held still, {within_s} s after the last turn: {left}, {now}")
        await asyncio.sleep(0.005)
    return time.monotonic() - began_at


class Leaks:
    """Tasks and file descriptors of this process beyond those there were before."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._descriptors = _descriptors()

    async def none(self, within_s: float = _SETTLE_S) -> None:
        give_up_at = time.monotonic() + within_s
        while True:
            tasks = asyncio.all_tasks() - self._tasks
            descriptors = _descriptors()
            if not tasks and len(descriptors) <= len(self._descriptors):
                return
            if time.monotonic() > give_up_at:
                new = {fd: link for fd, link in descriptors.items() if self._descriptors.get(fd) != link}
                raise AssertionError(f"left behind: {len(tasks)} tasks {tasks}; descriptors {new}")
            await asyncio.sleep(0.02)


def _descriptors() -> dict[str, str]:
    """But those of the document store: each of its threads opens it when it is first needed."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the one that listed the folder
        if "store.sqlite" not in target:
            found[fd] = target
    return found


@contextmanager
def unhandled() -> Iterator[list[dict[str, Any]]]:
    """What the event loop was told of meanwhile: exceptions that nobody took."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(before)


async def warm_up(gateway: Gateway, body: dict[str, Any]) -> None:
    """A few turns, so that what is made once (threads with their connections) is there before anything is compared."""
    for _ in range(3):
        connections = [await Connection.open(port_of(gateway)) for _ in range(8)]
        await asyncio.gather(*(connection.ask(body) for connection in connections))
        for connection in connections:
            connection.leave()
    await settled(gateway)


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rpartition(":")[2])

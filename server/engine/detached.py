"""Long blocking work in a thread that nobody has to wait for: neither the event loop nor the interpreter's exit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def run_detached(call: Callable[[], T], name: str, discard: Callable[[T], None] | None = None) -> T:
    """The result of `call`, or what it raised. When the caller is cancelled first, `discard` gets a late result.

    `asyncio.to_thread` would hold a shutdown up until the call has ended.
    """
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = call()
        except Exception as raised:  # noqa: BLE001 - handed on to whoever waits
            _tell(loop, partial(fail, raised))
        else:
            if not _tell(loop, partial(succeed, result)) and discard is not None:
                discard(result)

    def fail(error: Exception) -> None:
        if not settled.done():
            settled.set_exception(error)

    def succeed(result: T) -> None:
        if not settled.done():
            settled.set_result(result)
        elif discard is not None:
            discard(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await settled


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return False
    return True

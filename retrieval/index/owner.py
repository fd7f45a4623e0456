"""The one thread that makes an index's calls, and the queue in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Call:
    run: Callable[[Sequence[Any]], Sequence[Any]]
    """Takes the arguments of all calls that were made together, returns their results in this order."""
    argument: Any
    together: Hashable | None
    """Neighbours in the queue with the same value here are made as one; None stays alone."""
    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[Any] | None


class Owner:
    """Runs calls in the order in which they were made.

    A thread and a queue of our own: the hop through `ThreadPoolExecutor` and two futures takes twice as long, and
    it cannot show what else is waiting. The queue has no bound of its own: the callers wait for their results, and
    how many they are is bounded at the door. Of calls that can be made together (searches) those whose callers have
    gone are left out; any other is made all the same.
    """

    def __init__(self, name: str, prepare: Callable[[], None]) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._work, args=(prepare,), name=name, daemon=True)
        self._thread.start()

    async def call(self, run: Callable[[], T]) -> T:
        """The call is in the queue before this first waits. Raises `RuntimeError` after `close`."""
        found: T = await self.call_together(_alone(run), None, None)
        return found

    async def call_together(
        self, run: Callable[[Sequence[Any]], Sequence[Any]], argument: Any, together: Hashable | None
    ) -> Any:
        """As `call`; neighbours in the queue with equal `together` become one call with all their arguments."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Call(run, argument, together, loop, future))
        return await future

    def post(self, run: Callable[[], object]) -> None:
        """For other threads: nobody waits. After `close` nothing happens."""
        with contextlib.suppress(RuntimeError):
            self._put(_Call(_alone(run), None, None, None, None))

    def _put(self, call: _Call) -> None:
        with self._closing:
            if self._closed:
                raise RuntimeError("the index is closed")
            self._queue.put(call)

    def close(self) -> None:
        """What is in the queue is done first."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self, prepare: Callable[[], None]) -> None:
        prepare()
        ended = False
        while not ended:
            waiting, ended = self._arrived()
            while waiting:
                n = 1
                first = waiting[0]
                while (
                    n < len(waiting) and first.together is not None and waiting[n].together == first.together
                ):
                    n += 1
                self._make(waiting[:n])
                del waiting[:n], first

    def _arrived(self) -> tuple[list[_Call], bool]:
        calls: list[_Call] = []
        call = self._queue.get()
        with contextlib.suppress(Empty):
            while call is not None:
                calls.append(call)
                call = self._queue.get_nowait()
        return calls, call is None

    def _make(self, calls: list[_Call]) -> None:
        if calls[0].together is not None:
            calls = [call for call in calls if call.future is None or not call.future.cancelled()]
        if not calls:
            return
        results: Sequence[Any] = ()
        error: BaseException | None = None
        try:
            results = calls[0].run([call.argument for call in calls])
        except Exception as raised:  # noqa: BLE001 -- it is the callers', each of whom waits for an answer
            error = raised
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for at, call in enumerate(calls):
            if call.loop is not None and call.future is not None:
                by_loop.setdefault(call.loop, []).append(
                    (call.future, results[at] if error is None else None)
                )
        for loop, answers in by_loop.items():
            # A loop that was closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_answer, answers, error)


def _answer(answers: list[tuple[asyncio.Future[Any], Any]], error: BaseException | None) -> None:
    for future, result in answers:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _alone(run: Callable[[], Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    return lambda _: [run()]

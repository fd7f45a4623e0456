"""Whatever the order of putting, getting and failing, a mailbox loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from server.engine.mailbox import Mailbox
from server.engine.protocol import Delta, EngineDead, Prefill, RequestAborted

N_ANSWERS = 3
Step = Literal["get", "leave", "turn", "fail", "fail again"] | int
"""An answer's number puts its next delta; `leave` cancels a reader that waits; `turn` lets the loop run once."""

steps = st.lists(
    st.integers(0, N_ANSWERS - 1) | st.sampled_from(["get", "get", "get", "leave", "turn", "turn"]),
    max_size=60,
)
endings = st.lists(
    st.integers(0, N_ANSWERS - 1) | st.sampled_from(["get", "leave", "turn", "fail again"]), max_size=10
)


class Post:
    """A mailbox, what was put into it, and what came out."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.put: list[Delta] = []
        self.taken: list[Delta] = []
        self.errors: list[Exception] = []
        self._reader: asyncio.Task[None] | None = None

    async def step(self, step: Step) -> None:
        match step:
            case "get":
                if self._reader is None or self._reader.done():
                    self._reader = asyncio.create_task(self._read())
            case "leave":
                if self._reader is not None:
                    self._reader.cancel()
                    await asyncio.wait((self._reader,))
            case "turn":
                await asyncio.sleep(0)
            case "fail":
                self.mailbox.fail(EngineDead("first"))
            case "fail again":
                self.mailbox.fail(RequestAborted("second"))
            case int(index):
                number = len(self.put)
                prefill = Prefill(0.0, 0.0, number) if number == 0 else None
                self.put.append(Delta((number,), f"<{number}>", None, prefill, index))
                self.mailbox.put(self.put[-1])

    async def _read(self) -> None:
        try:
            self.taken.append(await self.mailbox.get())
        except (EngineDead, RequestAborted) as error:
            self.errors.append(error)

    async def empty(self) -> int:
        """Read until the error comes; returns how many deltas came before it."""
        if self._reader is not None:
            await asyncio.wait((self._reader,))
        n_taken, n_errors = len(self.taken), len(self.errors)
        while len(self.errors) == n_errors:
            await self._read()
        return len(self.taken) - n_taken


@given(before=steps, after=endings)
def test_everything_that_was_put_is_taken_once_and_in_order(before: list[Step], after: list[Step]) -> None:
    post, n_waiting = asyncio.run(play([*before, "fail", *after]))
    assert n_waiting <= N_ANSWERS
    assert post.errors
    assert {str(error) for error in post.errors} == {"first"}
    for index in range(N_ANSWERS):
        put = [delta for delta in post.put if delta.index == index]
        taken = [delta for delta in post.taken if delta.index == index]
        assert [token for delta in taken for token in delta.token_ids] == [
            token for delta in put for token in delta.token_ids
        ]
        assert "".join(delta.text for delta in taken) == "".join(delta.text for delta in put)
        assert [delta.prefill for delta in taken if delta.prefill] == [
            delta.prefill for delta in put if delta.prefill
        ]


async def play(steps: Sequence[Step]) -> tuple[Post, int]:
    """The post at its end, and how many deltas were still waiting then."""
    post = Post()
    for step in steps:
        await post.step(step)
    return post, await post.empty()

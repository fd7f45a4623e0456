"""The measuring client: a process that streams a plan's answers over raw sockets and prints what it saw.

Between a socket and its time stamp stand `epoll` and one `recv`; everything else waits until the clock has stopped.
"""

from __future__ import annotations

import gc
import heapq
import os
import random
import select
import socket
import sys
from collections.abc import Callable, Sequence
from time import perf_counter

import msgspec

from bench.answer import Turn, is_over
from bench.cpu import Sample, machine_time, take_sample
from bench.figures import figures_of
from bench.plan import Plan

_SAMPLE_S = 0.05
_READ_BYTES = 65_536
_LAST_CHUNK = b"0\r\n\r\n"
_REQUEST = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\n"
    "authorization: Bearer none\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
)


class Connection:
    """One stream: its requests one after the other, and what came back."""

    __slots__ = ("_pause_s", "_random", "_requests", "due", "sock", "turns")

    def __init__(self, port: int, pause_s: float, source: random.Random) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.turns: list[Turn] = []
        self.due = 0.0
        self._requests: list[bytes] = []
        self._pause_s = pause_s
        self._random = source

    def plan(self, requests: Sequence[bytes], first_at: float) -> None:
        self.turns = []
        self._requests = list(requests)
        self.due = first_at

    def send(self) -> None:
        request = self._requests[len(self.turns)]
        self.turns.append(Turn(perf_counter()))
        self.sock.send(request)

    def read(self) -> bool:
        """Take what is there; true when the answer is over."""
        now = perf_counter()
        try:
            data = self.sock.recv(_READ_BYTES)
        except ConnectionError:
            data = b""
        if not self.turns:
            return True
        turn = self.turns[-1]
        turn.times.append(now)
        turn.pieces.append(data)
        if not data or (len(turn.pieces) == 1 and not data.startswith(b"HTTP/1.1 200")):
            self._requests = []
            return True
        if data.endswith(_LAST_CHUNK) or len(data) < len(_LAST_CHUNK):
            return is_over(turn.pieces)
        return False

    def has_next(self) -> bool:
        """Another turn, due after a pause."""
        self.due = perf_counter() + self._random.uniform(0, self._pause_s)
        return len(self.turns) < len(self._requests)


def drive(connections: Sequence[Connection], timeout_s: float, tick: Callable[[], None]) -> None:
    """Stream every planned turn, or as much of it as `timeout_s` allows. `tick` is called every 50 ms."""
    epoll = select.epoll()
    by_fd = {connection.sock.fileno(): connection for connection in connections}
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    starts = [(connection.due, fd) for fd, connection in by_fd.items()]
    heapq.heapify(starts)
    left = len(connections)
    now = next_tick_at = perf_counter()
    give_up_at = now + timeout_s
    while left and now < give_up_at:
        while starts and starts[0][0] <= now:
            by_fd[heapq.heappop(starts)[1]].send()
        if now >= next_tick_at:
            tick()
            next_tick_at += _SAMPLE_S
        wake_at = min(starts[0][0], next_tick_at) if starts else next_tick_at
        for fd, _ in epoll.poll(max(0.0, wake_at - now)):
            connection = by_fd[fd]
            if not connection.read():
                continue
            if connection.has_next():
                heapq.heappush(starts, (connection.due, fd))
            else:
                epoll.unregister(fd)
                left -= 1
        now = perf_counter()
    tick()
    epoll.close()


def request(port: int, body: str) -> bytes:
    data = body.encode()
    return _REQUEST.format(port=port, length=len(data)).encode() + data


def measure(plan: Plan) -> tuple[list[list[Turn]], list[Sample]]:
    """The plan's turns by connection, and the CPU time taken along the way."""
    source = random.Random(plan.seed)
    connections = [Connection(plan.port, plan.pause_s, source) for _ in plan.bodies]
    if plan.warmup is not None:
        warmup = request(plan.port, plan.warmup)
        for connection in connections:
            connection.plan([warmup], perf_counter())
        drive(connections, plan.timeout_s, lambda: None)
    begin_at = perf_counter() + 0.05
    for connection, bodies in zip(connections, plan.bodies, strict=True):
        requests = [request(plan.port, body) for body in bodies]
        connection.plan(requests, begin_at + source.uniform(0, plan.spread_s))
    samples: list[Sample] = []
    drive(connections, plan.timeout_s, lambda: samples.append(take_sample(plan.cpu_pids)))
    for connection in connections:
        connection.sock.close()
    return [connection.turns for connection in connections], samples


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    if plan.cores:
        os.sched_setaffinity(0, plan.cores)
    gc.disable()
    machine, ours = machine_time(), sum(take_sample(plan.cpu_pids).cpu_s.values())
    turns, samples = measure(plan)
    ours = sum(take_sample(plan.cpu_pids).cpu_s.values()) - ours
    all_s, busy_s, stolen_s = (after - before for after, before in zip(machine_time(), machine, strict=True))
    figures = msgspec.structs.replace(
        figures_of(plan, turns, samples), stolen_share=stolen_s / all_s, others_share=(busy_s - ours) / all_s
    )
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()

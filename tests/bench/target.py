"""The reference: an OpenAI-compatible SSE server with a fixed time to first token and a fixed token interval.

It is `direct`'s server and the upstream of the gateways, so it must not be what is measured: frames are rendered
before it starts, each token is one `send` from a bare epoll loop, and token k of an answer is due at
`first + k * interval`, whatever became of those before it. Its timers have whole milliseconds, as those of event
loops have: tokens due within one leave together, here as from the engine that Firstword simulates in its own loop.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import re
import select
import socket
from time import perf_counter
from typing import NamedTuple

import msgspec

# Different ones: some gateways take the same text a hundred times over for a fault.
_WORDS = (
    "time",
    "to",
    "first",
    "word",
    "is",
    "what",
    "a",
    "reader",
    "feels",
    "and",
    "hardly",
    "any",
    "other",
)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_CHUNK = (
    '{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,'
    '"model":"bench","choices":[%s]%s}'
)
_CHOICE = '{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}'
_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Body(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: StreamOptions | None = None


def _event(data: str) -> bytes:
    """One SSE event as one HTTP chunk."""
    frame = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def _choice(delta: str, finish_reason: str = "null") -> bytes:
    return _event(_CHUNK % (_CHOICE % (delta, finish_reason), ""))


_ROLE = _choice('{"role":"assistant","content":""}')
_TEXTS = [_choice('{"content":" %s"}' % word) for word in _WORDS]  # noqa: UP031 - braces
_FINISH = _choice("{}", '"length"')
_END = _event("[DONE]") + b"0\r\n\r\n"


class Client:
    """One connection and the answer it is being sent."""

    __slots__ = ("begun_at", "position", "received", "sock", "tail", "tokens", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.unsent = b""
        self.tail = b""
        self.tokens = self.position = 0
        self.begun_at = 0.0

    def take_request(self) -> Body | None:
        """The next whole request, None while it is incomplete. Anything but a POST is answered at once."""
        head, separator, rest = self.received.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = _CONTENT_LENGTH.search(head)
        n_bytes = int(length[1]) if length else 0
        if len(rest) < n_bytes:
            return None
        self.received = rest[n_bytes:]
        if not head.startswith(b"POST"):
            self.send(_PLAIN)
            return None
        return msgspec.json.decode(rest[:n_bytes], type=Body)

    def begin(self, body: Body, first_at: float) -> None:
        self.tokens = body.max_completion_tokens or body.max_tokens or 16
        self.position = 0
        self.begun_at = first_at
        usage = b""
        if body.stream_options is not None and body.stream_options.include_usage:
            counts = (
                f'{{"prompt_tokens":8,"completion_tokens":{self.tokens},"total_tokens":{8 + self.tokens}}}'
            )
            usage = _event(_CHUNK % ("", f',"usage":{counts}'))
        self.tail = _FINISH + usage + _END

    def send(self, data: bytes) -> bool:
        """False when the reader is behind: what did not fit waits for it."""
        if self.unsent:
            self.unsent += data
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self.unsent = data[sent:]
        return False


class Due(NamedTuple):
    at: float
    order: int
    client: Client


class Target:
    def __init__(self, sock: socket.socket, ttft_s: float, interval_s: float) -> None:
        self._listener = sock
        self._ttft_s = ttft_s
        self._interval_s = interval_s
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._due: list[Due] = []
        self._order = itertools.count()

    def run(self) -> None:
        self._epoll.register(self._listener, select.EPOLLIN)
        while True:
            timeout_s = 1.0
            if self._due:
                timeout_s = max(0.0, self._due[0].at - perf_counter())
            for fd, events in self._epoll.poll(timeout_s):
                self._on_ready(fd, events)
            self._send_due()

    def _on_ready(self, fd: int, events: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
            return
        client = self._clients[fd]
        if events & select.EPOLLOUT:
            self._flush(client)
        if events & ~select.EPOLLOUT:
            self._read(client)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[sock.fileno()] = Client(sock)
        self._epoll.register(sock, select.EPOLLIN)

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.received += data
        if (body := client.take_request()) is not None:
            client.begin(body, perf_counter() + self._ttft_s)
            heapq.heappush(self._due, Due(client.begun_at, next(self._order), client))

    def _drop(self, client: Client) -> None:
        self._clients.pop(client.sock.fileno(), None)
        client.sock.close()

    def _flush(self, client: Client) -> None:
        waiting, client.unsent = client.unsent, b""
        try:
            caught_up = client.send(waiting)
        except ConnectionError:
            self._drop(client)
            return
        if caught_up:
            self._epoll.modify(client.sock, select.EPOLLIN)

    def _send_due(self) -> None:
        due = self._due
        now = perf_counter()
        while due and due[0].at <= now:
            client = due[0].client
            if client.sock.fileno() < 0:
                heapq.heappop(due)
                continue
            data = _TEXTS[client.position % len(_TEXTS)]
            if client.position == 0:
                data = _HEAD + _ROLE + data
            client.position += 1
            last = client.position == client.tokens
            if last:
                data += client.tail
                heapq.heappop(due)
            else:
                next_at = client.begun_at + client.position * self._interval_s
                heapq.heapreplace(due, Due(next_at, next(self._order), client))
            try:
                kept_up = client.send(data)
            except ConnectionError:
                self._drop(client)
                continue
            if not kept_up:
                self._epoll.modify(client.sock, select.EPOLLIN | select.EPOLLOUT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ttft-ms", type=float, default=0.0)
    parser.add_argument("--interval-ms", type=float, required=True)
    arguments = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", arguments.port), backlog=4096)
    # A collection would hold a token up; nothing here makes cycles.
    gc.disable()
    Target(listener, arguments.ttft_ms / 1_000, arguments.interval_ms / 1_000).run()


if __name__ == "__main__":
    main()

"""`python -m bench.testers.target`: the reference target of the bench, with a log of what it really sent.

One JSON object a line, `perf_counter` seconds, which all processes of a Linux machine share. The first token's time is
taken when the kernel has the bytes. `gaps_us` are the gaps between the tokens as they were sent. The log is written when
SIGTERM ends the target: hundreds of answers that end together would otherwise hold up the tokens of the next.

Posts to other paths get a 404 and are not logged: some testers ask for `/tokenize` first.
With `--role-first` the role chunk leaves as soon as the request is in, and the first token alone when it is due.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import re
import select
import signal
import socket
import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec

from bench.target import _HEAD, _ROLE, Body, Client, Target

_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_REQUEST_ID = re.compile(rb"(?i)\r\nx-request-id: *([^\r]+)")


class LoggedRequest(msgspec.Struct, kw_only=True):
    """One line of the log."""

    request_id: str
    received_at: float
    engine_first_token_at: float | None
    """When the first token was due."""
    first_token_at: float | None
    last_token_at: float | None
    tokens: int
    """Sent."""
    outcome: str
    gaps_us: list[int] | None = None


class Answer(NamedTuple):
    """What becomes a line of the log."""

    request_id: str
    received_at: float
    due_at: float
    sent_at: list[float]
    outcome: str

    def logged(self) -> LoggedRequest:
        at = self.sent_at
        return LoggedRequest(
            request_id=self.request_id,
            received_at=self.received_at,
            engine_first_token_at=self.due_at,
            first_token_at=at[0] if at else None,
            last_token_at=at[-1] if at else None,
            tokens=len(at),
            outcome=self.outcome,
            gaps_us=[round((later - earlier) * 1e6) for earlier, later in itertools.pairwise(at)],
        )


class LoggedClient(Client):
    __slots__ = ("answers", "due_at", "request_id", "role_first", "sent_at", "started_at")

    def __init__(self, sock: socket.socket, answers: list[Answer], role_first: bool) -> None:
        super().__init__(sock)
        self.answers = answers
        self.role_first = role_first
        self.request_id = ""
        self.started_at = 0.0
        self.due_at = 0.0
        self.sent_at: list[float] = []

    def take_request(self) -> Body | None:
        head = self.received.partition(b"\r\n\r\n")[0]
        body = super().take_request()
        if body is not None and b"/chat/completions " not in head.partition(b"\r\n")[0]:
            super().send(_NOT_FOUND)
            return None
        found = _REQUEST_ID.search(head)
        self.request_id = found[1].decode("latin-1") if found else ""
        return body

    def begin(self, body: Body, first_at: float) -> None:
        self.started_at = perf_counter()
        super().begin(body, first_at)
        self.due_at = first_at
        self.sent_at = []
        if self.role_first:
            super().send(_HEAD + _ROLE)

    def send(self, data: bytes) -> bool:
        n_tokens = self.position
        is_token = self.tokens > 0 and n_tokens == len(self.sent_at) + 1
        if is_token and n_tokens == 1 and self.role_first:
            data = data.removeprefix(_HEAD + _ROLE)
        kept_up = super().send(data)
        if is_token:
            self.sent_at.append(perf_counter())
            if n_tokens == self.tokens:
                self.close_answer("ok")
        return kept_up

    def close_answer(self, outcome: str) -> None:
        self.answers.append(Answer(self.request_id, self.started_at, self.due_at, self.sent_at, outcome))
        self.tokens = 0


class LoggedTarget(Target):
    def __init__(
        self, sock: socket.socket, ttft_s: float, interval_s: float, answers: list[Answer], role_first: bool
    ) -> None:
        super().__init__(sock, ttft_s, interval_s)
        self._answers = answers
        self._role_first = role_first

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[sock.fileno()] = LoggedClient(sock, self._answers, self._role_first)
        self._epoll.register(sock, select.EPOLLIN)

    def _drop(self, client: Client) -> None:
        if isinstance(client, LoggedClient) and client.tokens:
            client.close_answer("cancelled")
        super()._drop(client)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ttft-ms", type=float, default=0.0)
    parser.add_argument("--interval-ms", type=float, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--role-first", action="store_true")
    arguments = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", arguments.port), backlog=4096)
    # A collection would hold a token up; nothing here makes cycles.
    gc.disable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    answers: list[Answer] = []
    ttft_s, interval_s = arguments.ttft_ms / 1_000, arguments.interval_ms / 1_000
    try:
        LoggedTarget(listener, ttft_s, interval_s, answers, arguments.role_first).run()
    finally:
        lines = (msgspec.json.encode(answer.logged()) + b"\n" for answer in answers)
        Path(arguments.log).write_bytes(b"".join(lines))


if __name__ == "__main__":
    main()

"""The target: an OpenAI-compatible server over the simulated engine that hides nothing of its own timing.

It is what load testers are held against, so little stands between engine and socket: no framework, no task and no
queue for a stream, one `send` for a token.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Callable
from functools import partial
from time import perf_counter

from server.engine.protocol import GenerateRequest, Sampling
from server.engine.simulated import SimulatedEngine
from server.errors import (
    Busy,
    FirstwordError,
    Internal,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
)
from server.target import frames
from server.target.connection import Connection, Request
from server.target.frames import Chunks
from server.target.log import Log, Outcome, Record
from server.target.options import TargetOptions
from server.target.reply import Reply, StreamedReply, WholeReply
from server.target.request import Wanted, read_chat, read_completion
from server.target.vocabulary import FourByteVocabulary

_ACCEPT_PAUSE_S = 0.1
_CREATED = 1_700_000_000


class Target:
    """Serves from its construction until `close`."""

    def __init__(self, options: TargetOptions, listener: socket.socket, log: Log) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._log = log
        self._vocabulary = FourByteVocabulary()
        self._engine = SimulatedEngine(options.engine(), self._vocabulary)
        self._chat = Chunks("chat.completion.chunk", "chatcmpl-", options.model)
        self._completion = Chunks("text_completion", "cmpl-", options.model)
        self.connections: set[Connection] = set()
        self._accepted = itertools.count(1)
        self._requests = itertools.count(1)
        self._chance = random.Random(options.seed)
        self._loop.add_reader(listener.fileno(), self._accept)

    async def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        await self._engine.close()
        for connection in tuple(self.connections):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:
                # No descriptor is free: the next attempt comes in a moment, not in a busy loop.
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_S, self._accept_again)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = next(self._accepted)
            self.connections.add(Connection(sock, number, self._loop, self._answer, self.connections.discard))

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _answer(self, connection: Connection, request: Request) -> None:
        path = request.target.partition(b"?")[0].decode("latin-1")
        error: FirstwordError
        extra = ""
        match self._route(path):
            case None:
                error = NotFound(f"there is nothing at {path[:256]}: generate with POST /v1/chat/completions")
            case method, respond:
                if request.method == method:
                    respond(connection, path, request)
                    return
                error = MethodNotAllowed(f"{path} is for {method}, and this was a {request.method}")
                extra = f"allow: {method}\r\n"
        is_head = request.method == "HEAD"
        connection.respond(
            frames.error_response(
                error, request.request_id, closes=connection.closes, extra=extra, bodiless=is_head
            )
        )

    def _route(self, path: str) -> tuple[str, Callable[[Connection, str, Request], None]] | None:
        if path in ("/v1/chat/completions", "/v1/completions"):
            return "POST", self._generate
        if path == "/v1/chat/prewarm":
            return "POST", self._prewarm
        if path == "/v1/models":
            return "GET", partial(_say, {"object": "list", "data": [self._model()]})
        if path == f"/v1/models/{self._options.model}":
            return "GET", partial(_say, self._model())
        if path in ("/health", "/health/ready", "/health/live"):
            return "GET", partial(_say, {"status": "ready"})
        return None

    def _model(self) -> dict[str, object]:
        return {"id": self._options.model, "object": "model", "created": _CREATED, "owned_by": "firstword"}

    def _prewarm(self, connection: Connection, path: str, request: Request) -> None:
        record = self._record(connection, path, request)
        connection.respond(frames.response(202, {}, record.request_id, closes=connection.closes))
        self._end(record, "prewarmed", 202)

    def _generate(self, connection: Connection, path: str, request: Request) -> None:
        record = self._record(connection, path, request)
        drawn = self._chance.random()
        options = self._options
        try:
            if (drawn := drawn - options.refuse_share) < 0:
                record.outcome = "refused"
                raise Busy("refused, as --refuse-share asks for", retry_after_s=1)
            if (drawn := drawn - options.fail_share) < 0:
                record.outcome = "failed"
                raise Internal("failed, as --fail-share asks for")
            read = read_chat if path == "/v1/chat/completions" else read_completion
            wanted = read(bytes(request.body), self._vocabulary, options.tokens)
            if wanted.stream and request.is_old:
                raise InvalidParameter("stream: HTTP/1.0 cannot carry one; use HTTP/1.1", param="stream")
        except FirstwordError as error:
            connection.respond(frames.error_response(error, record.request_id, closes=connection.closes))
            self._end(record, "invalid" if record.outcome == "ok" else record.outcome, error.status)
            return
        record.prompt_tokens = len(wanted.prompt_token_ids)
        self._start(connection, record, wanted, cuts=drawn < options.cut_share)

    def _start(self, connection: Connection, record: Record, wanted: Wanted, *, cuts: bool) -> None:
        number = next(self._requests)
        engine_id = str(number)
        reply: Reply

        def end(ended: Record) -> None:
            self._engine.withdraw(engine_id)
            self._log.add(ended)

        if wanted.stream:
            chunks = self._chat if record.path == "/v1/chat/completions" else self._completion
            cut_after = max(1, wanted.tokens // 2) if cuts else None
            reply = StreamedReply(
                connection,
                record,
                end,
                chunks,
                number,
                include_usage=wanted.include_usage,
                cut_after=cut_after,
            )
        else:
            reply = WholeReply(connection, record, end, number, self._options.model)
        connection.reply_with(reply)
        if self._options.early_role and isinstance(reply, StreamedReply):
            reply.begin()
        sampling = Sampling(max_tokens=wanted.tokens, ignore_eos=True)
        self._engine.submit(GenerateRequest(engine_id, wanted.prompt_token_ids, sampling), reply)

    def _record(self, connection: Connection, path: str, request: Request) -> Record:
        return Record(
            request_id=request.request_id or f"{random.getrandbits(128):032x}",
            path=path,
            connection=connection.number,
            arrived_at=request.arrived_at,
            received_at=request.received_at,
        )

    def _end(self, record: Record, outcome: Outcome, status: int) -> None:
        """Of a request that nothing is generated for."""
        record.outcome, record.status, record.ended_at = outcome, status, perf_counter()
        self._log.add(record)


def _say(body: object, connection: Connection, path: str, request: Request) -> None:
    connection.respond(frames.response(200, body, request.request_id, closes=connection.closes))

"""A server of raw bytes: a script decides what each request gets, down to where the reads are cut.

Nothing of HTTP is done for the script but reading requests, so that it can do everything wrong.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

GAP_S = 0.02


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": choices,
        **more,
    }


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    details = {"cached_tokens": cached}
    return chunk(
        usage={"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    )


def frame(data: object, ending: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + ending


ROLE = frame(chunk({"role": "assistant", "content": ""}))
STOP = frame(chunk({}, "stop"))
DONE = b"data: [DONE]\n\n"


def token(text: str) -> bytes:
    return frame(chunk({"content": text}))


ANSWER = ROLE + token("so") + STOP + DONE


def head(status: int = 200, *headers: str, kind: str = "text/event-stream") -> bytes:
    """Up to the blank line; without a `content-length` or `transfer-encoding` the body ends with the connection."""
    lines = [f"HTTP/1.1 {status} Whatever", *([f"content-type: {kind}"] if kind else []), *headers]
    return "\r\n".join([*lines, "", ""]).encode()


CHUNKED = head(200, "transfer-encoding: chunked")
END = b"0\r\n\r\n"


def sized(data: bytes) -> bytes:
    """As one chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def whole(body: bytes, status: int = 200, kind: str = "text/event-stream", *headers: str) -> bytes:
    return head(status, f"content-length: {len(body)}", *headers, kind=kind) + body


def json_answer(value: object, status: int = 200) -> bytes:
    return whole(json.dumps(value).encode(), status, "application/json")


@dataclass(slots=True)
class Exchange:
    """One request, and the way back. A script that returns leaves the connection open for the next."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    connection: int
    """Counted from 0."""
    _writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes, gap_s: float = 0.0) -> None:
        for number, piece in enumerate(pieces):
            if number and gap_s:
                await asyncio.sleep(gap_s)
            self._writer.write(piece)
            await self._writer.drain()

    async def stream(self, *events: bytes, gap_s: float = 0.0) -> None:
        """As a chunked response, one read each when there is a gap between them."""
        await self.send(CHUNKED + sized(events[0]), *map(sized, events[1:]), gap_s=gap_s)
        await self.send(END)

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    def cut(self) -> None:
        """What was sent last may be lost."""
        self._writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class StandIn:
    """Keeps what it was sent, for tests to look at."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.origin = ""
        self.requests: list[Exchange] = []
        """Chat completions alone."""
        self.prewarms: list[Exchange] = []
        self.connections = 0
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    def url_of(self, behaviour: str) -> str:
        return f"{self.origin}/{behaviour}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        try:
            while (exchange := await _read(reader, writer, number)) is not None:
                if exchange.path.endswith("/chat/completions"):
                    self.requests.append(exchange)
                elif exchange.path.endswith("/chat/prewarm"):
                    self.prewarms.append(exchange)
                await self.script(exchange)
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
) -> Exchange | None:
    try:
        beginning = await reader.readexactly(1)
        if not beginning.isupper():  # TLS, for one
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            return None
        top = beginning + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = top.decode().rstrip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    data = await reader.readexactly(int(headers.get("content-length", "0")))
    return Exchange(method, path, headers, json.loads(data) if data else {}, connection, writer)


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[StandIn]:
    """In the loop that runs now; every connection is gone when this is left."""
    standin = StandIn(script)
    server = await asyncio.start_server(standin.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    standin.origin = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield standin
    finally:
        server.close()
        tasks = list(standin.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def always(*pieces: bytes, gap_s: float = 0.0, then: str = "keep") -> Script:
    """The same bytes for every request; `then`: `keep` the connection, `close` it, `cut` it off, or `hang`."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(*pieces, gap_s=gap_s)
        if then == "close":
            await exchange.close()
        elif then == "cut":
            exchange.cut()
        elif then == "hang":
            await asyncio.sleep(60)

    return script


async def replying(exchange: Exchange) -> None:
    """Three tokens, GAP_S before each; the reply counts the turns, and so does the cache."""
    turn = sum(message["role"] == "user" for message in exchange.body["messages"])
    tokens = map(token, ("reply", " number", f" {turn}"))
    await exchange.stream(ROLE, *tokens, STOP + frame(usage(100, 5, 50 * (turn - 1))) + DONE, gap_s=GAP_S)


def after(seconds: float) -> Script:
    """One token after so long, whatever else goes on."""

    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.send(whole(ANSWER))

    return script


async def second_turn_fails(exchange: Exchange) -> None:
    if len(exchange.body["messages"]) > 1:
        await exchange.stream(frame({"error": {"message": "once is [bold]enough[/bold]"}}) + DONE)
    else:
        await exchange.stream(ANSWER)


async def echoing_key(exchange: Exchange) -> None:
    key = exchange.headers["authorization"].split()[1]
    await exchange.send(json_answer({"error": {"message": f"bad key {key}"}}, 401))


async def timed(exchange: Exchange) -> None:
    timing = {"ttft": 0.5, "prompt_tokens": 40, "cached_tokens": 30, "prefill": 0.25, "embed": 0.125}
    await exchange.stream(token("so"), frame(chunk({}, "stop", firstword={"timing": timing})) + DONE)


BEHAVIOURS: dict[str, Script] = {
    "plain": replying,
    "quick": always(whole(ANSWER)),
    "slow": after(0.05),
    "hangs": always(CHUNKED + sized(ROLE), then="hang"),
    "second-fails": second_turn_fails,
    "echoes-key": echoing_key,
    "timed": timed,
    "busy": always(json_answer({"error": {"message": "queue full"}}, 429)),
}


async def by_path(exchange: Exchange) -> None:
    """`/{behaviour}/v1/…`, with a list of models for all but those that are about it."""
    behaviour = exchange.path.split("/")[1]
    if exchange.path.endswith("/models"):
        await exchange.send(MODELS.get(behaviour, json_answer({"data": [{"id": "first"}, {"id": "second"}]})))
    else:
        await BEHAVIOURS[behaviour](exchange)


MODELS = {
    "html": whole(b"<h1>Welcome to nginx!</h1>", 200, "text/html"),
    "empty": json_answer({"data": []}),
    "unauthorized": json_answer({"error": {"message": "who are you?"}}, 401),
}

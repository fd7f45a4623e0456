"""A target in the test's own event loop, and what tests send it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from server.target.log import Log
from server.target.options import TargetOptions
from server.target.run import listen
from server.target.server import Target

CHAT = "/v1/chat/completions"
TIMER_S = 0.002


class Site:
    """A target in this process, and what its log said in the end."""

    def __init__(self, port: int, target: Target, log: Path) -> None:
        self.port = port
        self.target = target
        self._log = log
        # Without `verify` it would read the machine's certificates, for each test anew.
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, verify=False)

    async def stream(self, **fields: Any) -> tuple[list[dict[str, Any]], bool]:
        """The chunks of one streamed answer, and whether `[DONE]` came."""
        response = await self.http.post(CHAT, json=chat(stream=True, **fields))
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, rest = response.text.split("\n\n")
        assert rest == ""
        data = [event.removeprefix("data: ") for event in events]
        done = data[-1] == "[DONE]"
        return [json.loads(event) for event in (data[:-1] if done else data)], done

    async def raw(self, *pieces: bytes) -> bytes:
        """All that comes back until the target closes the connection, or half a second of silence."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while data := await asyncio.wait_for(reader.read(65_536), 0.5):
                received += data
        except TimeoutError:
            pass
        finally:
            writer.close()
        return received

    async def alone(self) -> None:
        """Returns when no connection is open."""
        async with asyncio.timeout(10):
            while self.target.connections:
                await asyncio.sleep(0.01)

    async def records(self, n: int) -> list[dict[str, Any]]:
        """The log, once it has so many lines."""
        async with asyncio.timeout(10):
            while len(lines := self._log.read_bytes().splitlines()) < n:
                await asyncio.sleep(0.02)
        return [json.loads(line) for line in lines]


Serve = Callable[..., Awaitable[Site]]


@asynccontextmanager
async def standing(log_path: Path, options: TargetOptions) -> AsyncIterator[Site]:
    with listen("127.0.0.1", 0) as listener:
        log = Log(log_path, asyncio.get_running_loop())
        target = Target(options, listener, log)
        site = Site(listener.getsockname()[1], target, log_path)
        async with site.http:
            yield site
        await target.close()
        log.close()


def chat(text: str = "Which port is it?", **fields: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **fields}


def request(body: bytes, *headers: str, method: str = "POST", path: str = CHAT) -> bytes:
    head = "".join(f"{header}\r\n" for header in (f"content-length: {len(body)}", *headers))
    return f"{method} {path} HTTP/1.1\r\nhost: here\r\n{head}\r\n".encode() + body


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])

"""One client of an OpenAI-compatible server: streams turns over httpx and never raises for what a server does.

Divergences from what an SDK does: nothing is retried (a retry would hide the refusal and restart the clock), redirects are
not followed, compression is not asked for (it would delay tokens), and proxies are left out for a loopback target.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

import httpx
import msgspec

from loadtest.errors import TargetError
from loadtest.measure import Outcome, TurnRecorder, TurnResult, error_message, one_line
from loadtest.sse import SseDecoder
from loadtest.workload import Conversation, Message

_ERROR_BODY_BYTES = 4096
_LINGER_S = 1.0
"""How long a stream may stay open after `[DONE]`; until it closes, its connection cannot serve the next turn."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where turns go and what is asked of each. `url` ends before `/chat/completions`."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    max_tokens: int | None = None
    timeout_s: float = 300.0


def check_url(url: str) -> str:
    """The URL without its trailing slash. Raises `TargetError` if no request could be sent to it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and httpx.URL(url) is not None
        parts.port  # noqa: B018  raises if it is no port number
    except (ValueError, httpx.InvalidURL) as error:
        raise TargetError(f"--url: {error}. Give one like http://127.0.0.1:8000/v1.") from error
    if not usable or parts.query or parts.fragment:
        raise TargetError(f"--url {url!r} is not a server's address. Give one like http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise TargetError(
            "--url holds a user name or password, which reports would repeat. Set FIRSTWORD_API_KEY instead."
        )
    return url.rstrip("/")


def open_client(url: str, api_key: str | None) -> httpx.AsyncClient:
    """A client without limits of its own: a turn never waits for a connection of the pool."""
    headers = {"accept": "text/event-stream, application/json", "accept-encoding": "identity"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        headers=headers,
        timeout=None,  # noqa: S113  a turn's own deadline covers every wait
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=not _is_loopback(url),
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def find_model(client: httpx.AsyncClient, url: str, wanted: str | None, timeout_s: float) -> str:
    """The wanted model, or the first that the server lists. Raises `TargetError` if the server does not answer.

    With a model named, any answer will do: not every server lists its models.
    """
    try:
        response = await client.get(f"{url}/models", timeout=min(timeout_s, 30.0))
    except (httpx.HTTPError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
        raise TargetError(
            f"{url} does not answer ({_reason(error)}). Start the server or correct --url."
        ) from error
    if response.status_code in (401, 403):
        raise TargetError(
            f"{url} refuses the API key ({response.status_code}). Set FIRSTWORD_API_KEY or OPENAI_API_KEY to a valid one."
        )
    if wanted:
        return wanted
    try:
        return _ModelList.decode(response.content).data[0].id
    except (ValueError, IndexError) as error:
        raise TargetError(
            f"{url}/models answered {response.status_code} and names no model. "
            "Name one with --model, and check that --url ends where /models follows (often in /v1)."
        ) from error


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_ModelList = msgspec.json.Decoder(_Models)


@dataclass(frozen=True, slots=True)
class Client:
    """Holds conversations with one target. `began` is when this phase of the run began (`perf_counter` seconds)."""

    http: httpx.AsyncClient
    target: Target
    began: float
    warmup: bool

    async def converse(
        self, conversation: Conversation, due: float, on_turn: Callable[[TurnResult], None]
    ) -> float:
        """All turns in order, each with the replies the model really gave before it; the first is due at `due`.

        A failed turn ends the conversation: without its reply the next would be another conversation. Returns when
        the client was free again.
        """
        history = list(conversation.preamble)
        for number, turn in enumerate(conversation.turns, start=1):
            history.append(Message("user", turn.user))
            recorder = await self.stream_turn(history, due)
            ended = perf_counter()
            result = recorder.result(
                conversation_id=conversation.conversation_id,
                turn=number,
                warmup=self.warmup,
                began=self.began,
                now=ended,
            )
            on_turn(result)
            due = ended
            if result.outcome != "ok":
                break
            history.append(Message("assistant", "".join(recorder.reply)))
        return due

    async def stream_turn(self, messages: list[Message], due: float) -> TurnRecorder:
        """One streamed chat completion, to its end or its failure. Cancellation closes the connection."""
        recorder = TurnRecorder(due)
        remaining_s = due + self.target.timeout_s - perf_counter()
        try:
            async with asyncio.timeout(remaining_s) as deadline:
                await self._stream(messages, recorder, deadline)
        except TimeoutError:
            if recorder.done_at is None:
                recorder.fail("timeout", f"not finished {self.target.timeout_s:g} s after it was due")
            recorder.end()
        except httpx.HTTPError as error:
            if recorder.status is None:
                recorder.fail("connection", _reason(error))
            elif recorder.done_at is None:
                recorder.fail("truncated", f"the connection broke: {_reason(error)}")
            recorder.end()
        return self._redacted(recorder)

    async def _stream(
        self, messages: list[Message], recorder: TurnRecorder, deadline: asyncio.Timeout
    ) -> None:
        async with self.http.stream(
            "POST",
            f"{self.target.url}/chat/completions",
            content=self._body(messages),
            headers={"content-type": "application/json"},
        ) as response:
            recorder.headers(perf_counter(), response.status_code)
            if response.status_code != 200:
                outcome: Outcome = "refused" if response.status_code in (429, 503) else "http_error"
                recorder.fail(outcome, await _error_body(response))
                return
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in ("", "text/event-stream"):
                recorder.fail("malformed", f"answered {kind} instead of text/event-stream")
                return
            decoder = SseDecoder()
            async for read in response.aiter_raw():
                at = perf_counter()
                try:
                    events = decoder.feed(read)
                except ValueError as error:
                    recorder.fail("malformed", str(error))
                    return
                for data in events:
                    recorder.event(at, data)
                if recorder.failure is not None:
                    return
                if recorder.done_at == at:
                    deadline.reschedule(asyncio.get_running_loop().time() + _LINGER_S)
            recorder.end(decoder.unfinished)

    def _body(self, messages: list[Message]) -> bytes:
        body: dict[str, object] = {
            "model": self.target.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.target.max_tokens is not None:
            body["max_tokens"] = self.target.max_tokens
        return msgspec.json.encode(body)

    def _redacted(self, recorder: TurnRecorder) -> TurnRecorder:
        """Some servers repeat the key they refuse; a report must not."""
        key = self.target.api_key
        if key and recorder.failure is not None:
            outcome, detail = recorder.failure
            recorder.failure = outcome, detail.replace(key, "[API key]")
        return recorder


async def _error_body(response: httpx.Response) -> str:
    """The message of an error response, from at most its first few kilobytes."""
    body = b""
    async for read in response.aiter_raw():
        body += read
        if len(body) >= _ERROR_BODY_BYTES:
            break
    try:
        parsed = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return body[:_ERROR_BODY_BYTES].decode(errors="replace") or response.reason_phrase
    return error_message(parsed.get("error", parsed) if isinstance(parsed, dict) else parsed)


def _reason(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__

"""A user's conversation over the wire, and what the engine was given for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateways import Gateway
from server.engine.mailbox import Inbox
from server.engine.protocol import GenerateRequest
from server.guard.admission import PREWARM_PRIORITY
from wire import CHAT, Stream, take_apart

PREWARM = "/v1/chat/prewarm"
TOPICS = {
    "bicycles": "bicycle wheel spoke saddle handlebar puncture",
    "cheese": "cheese cellar rind brine whey ripening",
    "gliders": "glider thermal wing winch cockpit landing",
    "lanterns": "lantern wick paraffin lamp glass soot",
    "pianos": "piano hammer string pedal tuning soundboard",
    "tunnels": "tunnel drill lining rock shaft ventilation",
}
"""Documents of one chunk each, and words that find them: of no two the same."""


def write_library(folder: Path) -> None:
    """In place of what lies there."""
    for path in folder.iterdir():
        path.unlink()
    for topic in TOPICS:
        (folder / f"{topic}.md").write_text(document(topic))


def document(topic: str, told: str = "as it was in the beginning") -> str:
    sentences = [
        f"Of {word} the {topic} page says {told}, part {at}." for at, word in enumerate(words(topic))
    ]
    return f"# About {topic}\n\n" + " ".join(sentences) + "\n"


def words(topic: str) -> list[str]:
    return TOPICS[topic].split()


def asked_about(topic: str, weight: int = 1) -> str:
    """A question that finds the topic's document first.

    The question before it is searched for too: a later one has to weigh more.
    """
    return f"Tell of {' '.join(words(topic)[:3])} {' '.join([topic] * weight)}"


class Given:
    """Every request that the engine is given from now on, in order."""

    def __init__(self, gateway: Gateway) -> None:
        self.requests: list[GenerateRequest] = []
        self.queued_turns: list[int] = []
        """Turns that waited for a permit in the moment of each."""
        self._gateway = gateway
        engine = gateway.engine
        submit = engine.submit

        def recorded(request: GenerateRequest, inbox: Inbox) -> None:
            self.requests.append(request)
            self.queued_turns.append(gateway.parts.admission.queued_turns)
            submit(request, inbox)

        engine.submit = recorded

    @property
    def turns(self) -> list[list[int]]:
        """Prompts of turns."""
        return [list(one.prompt_token_ids) for one in self.requests if one.request_id.startswith("turn_")]

    @property
    def prewarms(self) -> list[list[int]]:
        """Prompts that were prefilled while a user typed."""
        return [list(one.prompt_token_ids) for one in self.requests if one.priority == PREWARM_PRIORITY]

    def text(self, at: int = -1) -> str:
        """Of a turn's prompt."""
        return self._gateway.parts.template.decode(self.turns[at])

    def texts(self) -> list[str]:
        """Of all requests, prewarms too."""
        decode = self._gateway.parts.template.decode
        return [decode(request.prompt_token_ids) for request in self.requests]


@dataclass(slots=True)
class Talk:
    """Sends back what it was sent, as a simple client does."""

    gateway: Gateway
    fields: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    async def say(self, text: str, **fields: Any) -> Stream:
        self.messages.append(user(text))
        body = self.fields | fields | {"messages": self.messages, "stream": True}
        async with (
            client_of(self.gateway) as client,
            client.stream("POST", CHAT, json=body, headers=self.headers) as response,
        ):
            stream = take_apart(response.status_code, response.headers, await response.aread())
        self.messages.append(assistant(stream.text))
        return stream

    async def type(self, text: str, **fields: Any) -> httpx.Response:
        """What has been typed so far, to be prefilled."""
        body = self.fields | fields | {"messages": [*self.messages, user(text)]}
        return await prewarm(self.gateway, body, **self.headers)

    def branch(self, n_messages: int) -> Talk:
        """Another that has the beginning in common."""
        return Talk(self.gateway, self.fields, self.messages[:n_messages], self.headers)


def client_of(gateway: Gateway) -> httpx.AsyncClient:
    """Certificates, which nobody needs here, take longer to load than a turn to answer."""
    return httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False, verify=False)


async def prewarm(gateway: Gateway, body: Any, **headers: str) -> httpx.Response:
    async with client_of(gateway) as client:
        if isinstance(body, bytes):
            return await client.post(PREWARM, content=body, headers=headers)
        return await client.post(PREWARM, json=body, headers=headers)


async def prewarmed() -> None:
    """Until every prewarm has come to its end."""
    await until(lambda: not running_prewarms())


def running_prewarms() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "prewarm" and not task.done()]


async def until(reached: Callable[[], Any], timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not reached():
            await asyncio.sleep(0.002)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def whole_blocks(n_tokens: int, block_size: int) -> int:
    return n_tokens // block_size * block_size


def sources(stream: Stream) -> dict[str, int]:
    """File name → number of the passages that an answer cites, best first."""
    cited = stream.chunks[0]["firstword"]["citations"]
    return {citation["filename"]: citation["index"] for citation in cited}

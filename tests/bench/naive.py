"""What a good engineer writes first: Starlette, httpx, pydantic models for every chunk, `EventSourceResponse`.

One shared client with pooled connections, models that check and re-render each chunk, no middleware, no logging.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import BaseModel, ConfigDict
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class ChatMessage(BaseModel):
    role: str
    content: str


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage]
    stream: bool = False
    max_tokens: int | None = None
    stream_options: StreamOptions | None = None


class Delta(BaseModel):
    role: str | None = None
    content: str | None = None


class Choice(BaseModel):
    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: str | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chunk(BaseModel):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


async def chat_completions(request: Request) -> Response:
    chat = ChatRequest.model_validate_json(await request.body())
    return EventSourceResponse(_relay(request.app.state.client, chat))


async def _relay(client: httpx.AsyncClient, chat: ChatRequest) -> AsyncIterator[dict[str, str]]:
    body = chat.model_dump(exclude_none=True)
    async with client.stream("POST", "/v1/chat/completions", json=body) as upstream:
        async for line in upstream.aiter_lines():
            if not line.startswith("data: "):
                continue
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                yield {"data": data}
            else:
                chunk = Chunk.model_validate_json(data)
                yield {"data": chunk.model_dump_json(exclude_unset=True)}


async def live(request: Request) -> Response:
    return JSONResponse({})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=os.environ["BENCH_UPSTREAM"], limits=limits, timeout=300, trust_env=False
    ) as client:
        app.state.client = client
        yield


app = Starlette(
    routes=[Route("/v1/chat/completions", chat_completions, methods=["POST"]), Route("/live", live)],
    lifespan=lifespan,
)

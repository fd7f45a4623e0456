"""A client of the endpoints of files and vector stores that holds every answer to the published document."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from gateways import Gateway
from server.api.openapi import document

FILES = "/v1/files"
STORES = "/v1/vector_stores"


def closed(published: dict[str, Any]) -> dict[str, Any]:
    """The same, with every field refused that it does not name."""
    published = copy.deepcopy(published)
    for schema in published["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return published


@asynccontextmanager
async def client_of(gateway: Gateway, key: str = "") -> AsyncIterator[httpx.AsyncClient]:
    published = closed(document(gateway.parts.settings, gateway.parts.model_name))
    places = {
        re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + "$"): item
        for path, item in published["paths"].items()
    }

    async def hold(response: httpx.Response) -> None:
        await response.aread()
        request = response.request
        item = next(item for place, item in places.items() if place.match(request.url.path))
        promised = item[request.method.lower()]["responses"][str(response.status_code)]
        for name, header in promised["headers"].items():
            if (published["components"]["headers"][name] | header).get("required"):
                assert name in response.headers
        media_type = response.headers["content-type"].partition(";")[0]
        schema = promised["content"][media_type]["schema"]
        if media_type == "application/json":
            Draft202012Validator(published | schema).validate(response.json())

    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, timeout=30, trust_env=False, event_hooks={"response": [hold]}
    ) as client:
        yield client


async def upload(client: httpx.AsyncClient, name: str, text: str | bytes) -> str:
    response = await client.post(FILES, files={"file": (name, text)}, data={"purpose": "assistants"})
    assert response.status_code == 200, response.text
    file_id: str = response.json()["id"]
    return file_id


async def create(client: httpx.AsyncClient, **fields: Any) -> str:
    response = await client.post(STORES, json=fields)
    assert response.status_code == 200, response.text
    store_id: str = response.json()["id"]
    return store_id


async def settled(client: httpx.AsyncClient, store_id: str) -> dict[str, int]:
    """The store's counts when nothing is on its way any more."""
    async with asyncio.timeout(30):
        while True:
            counts: dict[str, int] = (await client.get(f"{STORES}/{store_id}")).json()["file_counts"]
            if not counts["in_progress"]:
                return counts
            await asyncio.sleep(0.02)


async def found(client: httpx.AsyncClient, store_id: str, query: str, **fields: Any) -> list[dict[str, Any]]:
    response = await client.post(f"{STORES}/{store_id}/search", json={"query": query, **fields})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["data"]
    return results

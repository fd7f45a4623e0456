"""What the endpoints of files and vector stores share: whose the call is, and the store's work in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from starlette.requests import Request

from retrieval.errors import DocumentTooLarge, NotHere, StoreFull, StoreUnusable
from retrieval.file_types import FileStore, VectorStore
from retrieval.types import DEFAULT_STORE
from server.api.gate import gate_of
from server.errors import Forbidden, NotFound, StorageFull, TooLarge, Unavailable
from server.parts import Parts

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_SECONDS_OF_A_DAY = 86_400
_PARAMS = {"vector store": "vector_store_id", "batch": "batch_id"}
"""What the path calls the id, by the kind of thing."""


def caller(request: Request) -> tuple[Parts, str]:
    """The parts and the caller's tenant. Raises `NotReady` or `Unauthorized`."""
    parts = gate_of(request).open_parts()
    return parts, parts.authenticator.tenant(request.headers.get("authorization"))


def writer(request: Request) -> tuple[Parts, str]:
    """`caller`, for what changes something. Raises `Forbidden` for a page of another site.

    Without API keys whoever reaches the port may write, and so could any page that the user of this machine
    opens: a browser sends forms to other sites unasked. It names the page's origin with them.
    """
    parts, tenant = caller(request)
    origin, friends = request.headers.get("origin"), parts.settings.http.cors_origins
    if origin is None or parts.settings.auth.api_keys or origin in friends or "*" in friends:
        return parts, tenant
    if origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden("this page's origin is not in http.cors_origins")
    return parts, tenant


async def stored(
    call: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Run what blocks in a thread. Raises `NotFound`, `TooLarge`, `StorageFull` or `Unavailable` for the store's errors."""
    try:
        return await asyncio.to_thread(call, *arguments, **named)
    except NotHere as error:
        raise NotFound(str(error), param=_PARAMS.get(error.kind, "file_id")) from error
    except DocumentTooLarge as error:
        raise TooLarge(str(error), param="file") from error
    except StoreFull as error:
        raise StorageFull(str(error)) from error
    except StoreUnusable as error:
        raise Unavailable(str(error), retry_after_s=5) from error


@contextmanager
def blame(fields: Mapping[str, str]) -> Iterator[None]:
    """An id that came in one of these fields (id to field) and is not here is named by the field."""
    try:
        yield
    except NotFound as error:
        if isinstance(error.__cause__, NotHere) and error.__cause__.name in fields:
            raise NotFound(error.message, param=fields[error.__cause__.name]) from error.__cause__
        raise


def expires_at(store: VectorStore) -> float | None:
    """Unix seconds."""
    if store.expires_after_days is None:
        return None
    return store.last_active_at + store.expires_after_days * _SECONDS_OF_A_DAY


def open_store(files: FileStore, tenant: str, store_id: str) -> VectorStore:
    """A store that is to be used, and counts as used now. Blocks. Raises `NotHere`, for one that has expired too."""
    store = files.store(tenant, store_id)
    ends = expires_at(store)
    if ends is not None and ends <= time.time():
        raise NotHere("vector store", store_id)
    files.touch_store(store_id)
    return store


def check_may_write(store_id: str, tenant: str, parts: Parts) -> None:
    """Raises `Forbidden`."""
    if store_id == DEFAULT_STORE and not parts.may_write_default(tenant):
        raise Forbidden(
            f"the vector store {DEFAULT_STORE!r} is the deployment's: this API key may search it and not change it",
            param="vector_store_id",
        )


def check_is_own(store_id: str, what: str) -> None:
    """Raises `Forbidden`: nobody can delete or rename `default`."""
    if store_id == DEFAULT_STORE:
        raise Forbidden(
            f"the vector store {DEFAULT_STORE!r} is the deployment's and cannot be {what}",
            param="vector_store_id",
        )

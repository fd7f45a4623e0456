"""The routes of files and vector stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.chat import CLIENT_GONE
from server.api.file_batches import cancel_file_batch, create_file_batch, get_file_batch, list_batch_files
from server.api.files import delete_file, get_file, get_file_content, list_files, upload_file
from server.api.store_search import search_vector_store
from server.api.vector_store_files import (
    attach_file,
    detach_file,
    get_store_file,
    get_store_file_content,
    list_store_files,
    modify_store_file,
)
from server.api.vector_stores import (
    create_vector_store,
    delete_vector_store,
    get_vector_store,
    list_vector_stores,
    modify_vector_store,
)

Handler = Callable[[Request], Awaitable[Response]]

_STORE = "/v1/vector_stores/{vector_store_id}"
_FILE = _STORE + "/files/{file_id}"
_BATCH = _STORE + "/file_batches/{batch_id}"


def _route(path: str, **handlers: Handler) -> Route:
    """One per path, so that a 405 names every method there is."""

    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            return await handlers[method](request)
        except ClientDisconnect:
            return CLIENT_GONE

    return Route(path, handle, methods=list(handlers))


STORE_ROUTES = [
    _route("/v1/files", POST=upload_file, GET=list_files),
    _route("/v1/files/{file_id}", GET=get_file, DELETE=delete_file),
    _route("/v1/files/{file_id}/content", GET=get_file_content),
    _route("/v1/vector_stores", POST=create_vector_store, GET=list_vector_stores),
    _route(_STORE, GET=get_vector_store, POST=modify_vector_store, DELETE=delete_vector_store),
    _route(_STORE + "/search", POST=search_vector_store),
    _route(_STORE + "/files", POST=attach_file, GET=list_store_files),
    _route(_FILE, GET=get_store_file, POST=modify_store_file, DELETE=detach_file),
    _route(_FILE + "/content", GET=get_store_file_content),
    _route(_STORE + "/file_batches", POST=create_file_batch),
    _route(_BATCH, GET=get_file_batch),
    _route(_BATCH + "/cancel", POST=cancel_file_batch),
    _route(_BATCH + "/files", GET=list_batch_files),
]

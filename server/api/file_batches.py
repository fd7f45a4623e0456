"""`/v1/vector_stores/{id}/file_batches`: many files into a vector store at once.

A file that cannot be read in fails by itself, with its name and the reason; the rest of the batch goes on.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from retrieval.file_types import Batch, FileStore, ToAttach
from server.api.body import read_struct
from server.api.responses import json_response
from server.api.storage import blame, caller, check_may_write, open_store, stored, writer
from server.api.store_objects import file_batch
from server.api.store_schema import AttachFile, CreateFileBatch, check_file_ids, chunk_sizes
from server.api.vector_store_files import list_attachments
from server.errors import InvalidParameter


async def create_file_batch(request: Request) -> Response:
    parts, tenant = writer(request)
    store_id = request.path_params["vector_store_id"]
    check_may_write(store_id, tenant, parts)
    asked = await read_struct(request, parts.settings, CreateFileBatch)
    files = _files_of(asked)
    param = "file_ids" if asked.files is None else "files"
    strategy = "chunking_strategy" if asked.files is None else "files[{}].chunking_strategy"
    check_file_ids([file.file_id for file in files], param, parts.settings.files.max_files_per_batch)
    wanted = [
        ToAttach(file.file_id, file.attributes, *chunk_sizes(file.chunking_strategy, strategy.format(at)))
        for at, file in enumerate(files)
    ]
    field = "file_ids[{}]" if asked.files is None else "files[{}].file_id"
    with blame({file.file_id: field.format(at) for at, file in enumerate(files)}):
        batch = await stored(_create, parts.files, tenant, store_id, wanted)
    parts.ingestion.wake()
    return json_response(file_batch(batch))


def _files_of(asked: CreateFileBatch) -> list[AttachFile]:
    """Raises `InvalidParameter`."""
    if (asked.file_ids is None) == (asked.files is None):
        raise InvalidParameter("either 'file_ids' or 'files' is required, and not both", param="file_ids")
    if asked.files is None:
        return [
            AttachFile(file_id, asked.attributes, asked.chunking_strategy) for file_id in asked.file_ids or ()
        ]
    for name in ("attributes", "chunking_strategy"):
        if getattr(asked, name) is not None:
            raise InvalidParameter(
                f"{name}: with 'files' it stands in each of them, as files[0].{name}", param=name
            )
    return asked.files


def _create(files: FileStore, tenant: str, store_id: str, wanted: list[ToAttach]) -> Batch:
    open_store(files, tenant, store_id)
    _, batch_id = files.attach(tenant, store_id, wanted, batch=True)
    return files.batch(tenant, store_id, batch_id)


async def get_file_batch(request: Request) -> Response:
    parts, tenant = caller(request)
    return json_response(file_batch(await stored(parts.files.batch, tenant, *_ids(request))))


async def cancel_file_batch(request: Request) -> Response:
    """What is in the vector store by now stays there. The body, if there is one, is not read."""
    parts, tenant = writer(request)
    store_id, batch_id = _ids(request)
    check_may_write(store_id, tenant, parts)
    return json_response(file_batch(await stored(parts.files.cancel_batch, tenant, store_id, batch_id)))


async def list_batch_files(request: Request) -> Response:
    """Query: `filter` (a status), `limit` (1 to 100, default 20), `order`, `after`, `before`."""
    return await list_attachments(request, request.path_params["batch_id"])


def _ids(request: Request) -> tuple[str, str]:
    return request.path_params["vector_store_id"], request.path_params["batch_id"]

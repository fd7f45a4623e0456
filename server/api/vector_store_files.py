"""`/v1/vector_stores/{id}/files`: files in a vector store, and on their way there."""

from __future__ import annotations

from typing import cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from retrieval.file_types import Attachment, AttachmentStatus, FileStore, Page, ToAttach
from retrieval.types import DocumentStore
from server.api.body import read_struct
from server.api.listing import cursors, one_of, page_of
from server.api.responses import json_response
from server.api.storage import blame, caller, check_may_write, open_store, stored, writer
from server.api.store_objects import file_content, store_file
from server.api.store_schema import AttachFile, ModifyFile, chunk_sizes
from server.api.store_shapes import VectorStoreFile, VectorStoreFileDeleted, VectorStoreFileList
from server.parts import Parts

_STATUSES = ("in_progress", "completed", "failed", "cancelled")


async def attach_file(request: Request) -> Response:
    """The file is read in behind this answer: its status says how far that is."""
    parts, tenant = writer(request)
    store_id = request.path_params["vector_store_id"]
    check_may_write(store_id, tenant, parts)
    asked = await read_struct(request, parts.settings, AttachFile)
    attached = await stored(_attach, parts.files, tenant, store_id, asked)
    parts.ingestion.wake()
    return json_response(shown(attached, parts))


def _attach(files: FileStore, tenant: str, store_id: str, asked: AttachFile) -> Attachment:
    wanted = ToAttach(asked.file_id, asked.attributes, *chunk_sizes(asked.chunking_strategy))
    open_store(files, tenant, store_id)
    attached, _ = files.attach(tenant, store_id, [wanted])
    return attached[0]


async def list_store_files(request: Request) -> Response:
    """Query: `filter` (a status), `limit` (1 to 100, default 20), `order`, `after`, `before`."""
    return await list_attachments(request)


async def list_attachments(request: Request, batch_id: str = "") -> Response:
    parts, tenant = caller(request)
    page = page_of(request, also=("filter",))
    status = cast("AttachmentStatus | None", one_of(request, "filter", _STATUSES) or None)
    store_id = request.path_params["vector_store_id"]
    with blame(cursors(page)):
        return json_response(await stored(_listed, parts, tenant, store_id, page, status, batch_id))


def _listed(
    parts: Parts, tenant: str, store_id: str, page: Page, status: AttachmentStatus | None, batch_id: str
) -> VectorStoreFileList:
    if batch_id:
        parts.files.batch(tenant, store_id, batch_id)
    found, has_more = parts.files.attachments(tenant, store_id, page, status=status, batch_id=batch_id)
    return VectorStoreFileList(
        object="list",
        data=[shown(attachment, parts) for attachment in found],
        first_id=found[0].file_id if found else None,
        last_id=found[-1].file_id if found else None,
        has_more=has_more,
    )


async def get_store_file(request: Request) -> Response:
    parts, tenant = caller(request)
    attachment = await stored(parts.files.attachment, tenant, *_ids(request))
    return json_response(shown(attachment, parts))


async def modify_store_file(request: Request) -> Response:
    """Other attributes; the file is not read in again."""
    parts, tenant = writer(request)
    store_id, file_id = _ids(request)
    check_may_write(store_id, tenant, parts)
    asked = await read_struct(request, parts.settings, ModifyFile)
    modified = await stored(parts.files.modify_attachment, tenant, store_id, file_id, asked.attributes or {})
    return json_response(shown(modified, parts))


async def detach_file(request: Request) -> Response:
    """What begins to search after this answer does not find it any more. The file stays."""
    parts, tenant = writer(request)
    store_id, file_id = _ids(request)
    check_may_write(store_id, tenant, parts)
    await stored(parts.files.detach, tenant, store_id, file_id)
    return json_response(VectorStoreFileDeleted(file_id, "vector_store.file.deleted", deleted=True))


async def get_store_file_content(request: Request) -> Response:
    """The text that was found in the file."""
    parts, tenant = caller(request)
    content = await stored(_content, parts.files, parts.store, tenant, *_ids(request))
    return Response(content, media_type="application/json")


def _content(files: FileStore, store: DocumentStore, tenant: str, store_id: str, file_id: str) -> bytes:
    """A `FileContent`, encoded here: it may be long."""
    document_id = files.attachment(tenant, store_id, file_id).document_id
    return msgspec.json.encode(file_content(store.chunks(document_id) if document_id else ()))


def shown(attachment: Attachment, parts: Parts) -> VectorStoreFile:
    progress = parts.ingestion.progress(attachment.store_id, attachment.file_id)
    return store_file(attachment, parts.settings.retrieval, progress)


def _ids(request: Request) -> tuple[str, str]:
    return request.path_params["vector_store_id"], request.path_params["file_id"]

"""`/v1/vector_stores`: create, list, read, modify, delete."""

from __future__ import annotations

from msgspec import UnsetType
from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import NotHere
from retrieval.file_types import FileStore, Page, ToAttach, VectorStore
from server.api.body import read_struct
from server.api.listing import cursors, page_of
from server.api.quota import check_room_for_store
from server.api.responses import json_response
from server.api.storage import blame, caller, check_is_own, stored, writer
from server.api.store_objects import store_object
from server.api.store_schema import (
    CreateVectorStore,
    ExpiresAfter,
    ModifyVectorStore,
    check_file_ids,
    chunk_sizes,
)
from server.api.store_shapes import VectorStoreDeleted, VectorStoreList
from server.sections.files import FileSettings


async def create_vector_store(request: Request) -> Response:
    parts, tenant = writer(request)
    asked = await read_struct(request, parts.settings, CreateVectorStore)
    file_ids = asked.file_ids or []
    check_file_ids(file_ids, "file_ids", parts.settings.files.max_files_per_batch)
    sizes = chunk_sizes(asked.chunking_strategy)
    with blame({file_id: f"file_ids[{at}]" for at, file_id in enumerate(file_ids)}):
        made = await stored(_create, parts.files, parts.settings.files, tenant, asked, sizes)
    if file_ids:
        parts.ingestion.wake()
    return json_response(store_object(made))


def _create(
    files: FileStore,
    settings: FileSettings,
    tenant: str,
    asked: CreateVectorStore,
    sizes: tuple[int | None, int | None],
) -> VectorStore:
    check_room_for_store(files, settings, tenant)
    for file_id in asked.file_ids or ():
        files.file(tenant, file_id)
    made = files.create_store(
        tenant,
        asked.name or "",
        description=asked.description or "",
        metadata=asked.metadata,
        expires_after_days=None if asked.expires_after is None else asked.expires_after.days,
    )
    if not asked.file_ids:
        return made
    try:
        files.attach(tenant, made.store_id, [ToAttach(file_id, None, *sizes) for file_id in asked.file_ids])
    except NotHere:  # a file was deleted since
        files.delete_store(tenant, made.store_id)
        raise
    return files.store(tenant, made.store_id)


async def list_vector_stores(request: Request) -> Response:
    """Query: `limit` (1 to 100, default 20), `order`, `after`, `before`."""
    parts, tenant = caller(request)
    page = page_of(request)
    with blame(cursors(page)):
        return json_response(await stored(_listed, parts.files, tenant, page))


def _listed(files: FileStore, tenant: str, page: Page) -> VectorStoreList:
    found, has_more = files.stores(tenant, page)
    return VectorStoreList(
        object="list",
        data=[store_object(store) for store in found],
        first_id=found[0].store_id if found else None,
        last_id=found[-1].store_id if found else None,
        has_more=has_more,
    )


async def get_vector_store(request: Request) -> Response:
    parts, tenant = caller(request)
    store = await stored(parts.files.store, tenant, request.path_params["vector_store_id"])
    return json_response(store_object(store))


async def modify_vector_store(request: Request) -> Response:
    parts, tenant = writer(request)
    store_id = request.path_params["vector_store_id"]
    check_is_own(store_id, "changed")
    asked = await read_struct(request, parts.settings, ModifyVectorStore)
    expiry, metadata = asked.expires_after, asked.metadata
    modified = await stored(
        parts.files.modify_store,
        tenant,
        store_id,
        name=asked.name,
        metadata=None if isinstance(metadata, UnsetType) else metadata or {},
        expires_after_days=expiry.days if isinstance(expiry, ExpiresAfter) else None,
        expires=expiry is not None,
    )
    return json_response(store_object(modified))


async def delete_vector_store(request: Request) -> Response:
    """Its files stay."""
    parts, tenant = writer(request)
    store_id = request.path_params["vector_store_id"]
    check_is_own(store_id, "deleted")
    await stored(parts.files.delete_store, tenant, store_id)
    return json_response(VectorStoreDeleted(store_id, "vector_store.deleted", deleted=True))

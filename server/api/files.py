"""`/v1/files`: uploaded files. What is in them is found once they are in a vector store.

Divergences from OpenAI:
- Purposes are `assistants` and `user_data`: the others have no use here, and are refused.
- Every file can be downloaded again.
- An empty file is refused, and so is `expires_after`: files are kept until they are deleted.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from retrieval.file_types import FileStore, Page, StoredFile
from server.api.download import Download
from server.api.listing import cursors, page_of
from server.api.multipart import Upload, receive_upload
from server.api.quota import Desk, check_room_for_file, desk_of
from server.api.responses import json_response
from server.api.storage import blame, caller, stored, writer
from server.api.store_objects import file_object
from server.api.store_shapes import FileDeleted, FileList
from server.errors import InvalidParameter, RequestTimeout, StorageFull, UnknownParameter
from server.parts import Parts
from server.sections.files import FileSettings

PURPOSES = ("assistants", "user_data")
MOST_LISTED = 10_000

_LEAST_BYTES_PER_S = 16_384
_LONGEST_SHOWN = 64


async def upload_file(request: Request) -> Response:
    """Form fields: `file`, `purpose`."""
    parts, tenant = writer(request)
    desk = desk_of(request)
    with desk.uploads.take(tenant):
        return json_response(file_object(await _receive(request, parts, tenant, desk)))


async def _receive(request: Request, parts: Parts, tenant: str, desk: Desk) -> StoredFile:
    settings = parts.settings
    patience_s = settings.http.body_timeout_s
    # A full account is told before it sends everything.
    await stored(check_room_for_file, parts.files, settings.files, tenant, 1)
    try:
        async with receive_upload(
            request,
            settings.data_path,
            settings.retrieval.max_document_bytes,
            patience_s=patience_s,
            least_bytes_per_s=_LEAST_BYTES_PER_S,
        ) as upload:
            purpose = _purpose(upload)
            async with desk.storing:
                return await stored(_keep, upload, purpose, tenant, parts.files, settings.files)
    except TimeoutError:
        raise RequestTimeout(
            f"the upload brought less than {_LEAST_BYTES_PER_S} bytes a second after its first {patience_s:g} s"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StorageFull("the disk has no room for this file") from error


def _keep(upload: Upload, purpose: str, tenant: str, files: FileStore, settings: FileSettings) -> StoredFile:
    check_room_for_file(files, settings, tenant, upload.size_bytes)
    return files.add_file(tenant, upload.filename, purpose, upload.read())


def _purpose(upload: Upload) -> str:
    for name in upload.fields:
        if name.startswith("expires_after"):
            raise UnknownParameter(
                "'expires_after' is not supported here: files are kept until they are deleted",
                param="expires_after",
            )
        if name != "purpose":
            raise UnknownParameter(f"{name!r} is not supported here", param=name)
    purpose = upload.fields.get("purpose")
    if purpose is None:
        raise InvalidParameter(f"'purpose' is required: {_either()}", param="purpose")
    if purpose not in PURPOSES:
        raise InvalidParameter(f"purpose: {_either()}, not {purpose[:_LONGEST_SHOWN]!r}", param="purpose")
    return purpose


def _either() -> str:
    return " or ".join(f"'{purpose}'" for purpose in PURPOSES)


async def list_files(request: Request) -> Response:
    """Query: `purpose`, `limit` (1 to 10,000, the default), `order`, `after`."""
    parts, tenant = caller(request)
    page = page_of(request, most=MOST_LISTED, default=MOST_LISTED, before=False, also=("purpose",))
    purpose = request.query_params.get("purpose", "")
    with blame(cursors(page)):
        listed = await stored(_listed, parts.files, tenant, page, purpose)
    return Response(listed, media_type="application/json")


def _listed(files: FileStore, tenant: str, page: Page, purpose: str) -> bytes:
    """A `FileList`, encoded here: it may be long."""
    found, has_more = files.files(tenant, page, purpose)
    listed = FileList(
        object="list",
        data=[file_object(file) for file in found],
        first_id=found[0].file_id if found else None,
        last_id=found[-1].file_id if found else None,
        has_more=has_more,
    )
    return msgspec.json.encode(listed)


async def get_file(request: Request) -> Response:
    parts, tenant = caller(request)
    file = await stored(parts.files.file, tenant, request.path_params["file_id"])
    return json_response(file_object(file))


async def get_file_content(request: Request) -> Response:
    parts, tenant = caller(request)
    file_id = request.path_params["file_id"]
    with ExitStack() as place:
        place.enter_context(desk_of(request).downloads.take(tenant))
        file = await stored(parts.files.file, tenant, file_id)
        data = await stored(parts.files.file_data, tenant, file_id)
        return Download(data, file.filename, place.pop_all())


async def delete_file(request: Request) -> Response:
    """The file leaves every vector store, too."""
    parts, tenant = writer(request)
    file_id = request.path_params["file_id"]
    await stored(parts.files.delete_file, tenant, file_id)
    return json_response(FileDeleted(file_id, "file", deleted=True))

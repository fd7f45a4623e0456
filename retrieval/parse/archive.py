"""ZIP containers, bounded before any library unpacks them."""

from __future__ import annotations

import io
import zipfile

from retrieval.errors import DocumentTooLarge, UnreadableDocument
from retrieval.parse.limits import ParseLimits

_MAX_MEMBERS = 10_000
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
_MAX_RATIO = 250
"""Real documents stay below 100; deflate reaches 1032."""
_RATIO_FROM_BYTES = 16 * 1024 * 1024
_END_OF_DIRECTORY = b"PK\x05\x06"
_NEXT_STEP = "unpack it and add what it holds"


def open_archive(data: bytes, limits: ParseLimits) -> zipfile.ZipFile:
    """Raises `DocumentTooLarge` by what it would unpack to; `UnreadableDocument` if damaged or encrypted.

    Members never unpack to more than they declare: `zipfile` stops there.
    """
    end = data.rfind(_END_OF_DIRECTORY)
    if end < 0:
        raise UnreadableDocument("is damaged or cut short; get a complete copy")
    if int.from_bytes(data[end + 12 : end + 16], "little") > _MAX_DIRECTORY_BYTES:
        raise DocumentTooLarge(f"packs more than {_MAX_MEMBERS} files; {_NEXT_STEP}")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableDocument("is damaged or cut short; get a complete copy") from error
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise DocumentTooLarge(f"packs {len(members)} files, above the limit of {_MAX_MEMBERS}; {_NEXT_STEP}")
    if any(member.flag_bits & 1 for member in members):
        raise UnreadableDocument("is encrypted; save it without a password")
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > limits.max_unpacked_bytes:
        raise DocumentTooLarge(
            f"unpacks to {unpacked_bytes} bytes, above the limit of {limits.max_unpacked_bytes}; "
            "split it or raise the limit"
        )
    if unpacked_bytes > max(_RATIO_FROM_BYTES, _MAX_RATIO * len(data)):
        raise DocumentTooLarge(
            f"unpacks to {unpacked_bytes // len(data)} times its size, as a ZIP bomb does; save it anew"
        )
    return archive


def require_no_entities(archive: zipfile.ZipFile) -> None:
    """Raises `UnreadableDocument` for a document type declaration, which Office Open XML forbids (ECMA-376,
    part 2) and which is where entities that multiply or name other files are declared."""
    for name in archive.namelist():
        if name.endswith((".xml", ".rels")):
            markup = archive.read(name).replace(b"\0", b"")  # in UTF-16, too
            if b"<!DOCTYPE" in markup or b"<!ENTITY" in markup:
                raise UnreadableDocument("declares XML entities, which documents do not; save it anew")

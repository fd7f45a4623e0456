"""A form with one file, read as it comes and bounded before it takes memory.

The file goes through a small buffer into a spool: memory while it is small, then an unlinked file in the data
folder, of which a crash leaves nothing. Header names, sizes and counts are bounded by python-multipart.

Divergences from RFC 7578:
- One file, in the field named `file`; no field may stand there twice; unknown fields are the caller's to refuse.
- A part with a transfer encoding is refused, as section 4.7 deprecates them.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from server.errors import InvalidBody, InvalidParameter, TooLarge

FILE = "file"
MAX_FILENAME_CHARACTERS = 255
MAX_FIELDS = 8
MAX_FIELD_BYTES = 4_096
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4_096
AROUND_BYTES = 65_536
"""What a form may hold beside its file."""

_IN_MEMORY_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 18
"""Written at once, in a thread: a disk that hesitates holds up nobody else."""
_UNSHOWN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Categories of characters that show nothing: instructions could hide in them, and line breaks would end a line."""
_JOINERS = "\u200c\u200d"
"""Invisible, and needed within words of some scripts and within emoji."""


class Form:
    """A form as it comes in. `feed` is given its bytes; then `check_whole`."""

    def __init__(self, boundary: bytes, max_file_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.n_file_bytes = 0
        self.pending = bytearray()
        """Bytes of the file that are not in the spool yet."""
        self._max_file_bytes = max_file_bytes
        self._n_bytes = 0
        self._ended = False
        self._n_parts = 0
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._in_file = False
        self._field = ""
        self._value = bytearray()
        self._parser = self._make_parser(boundary)

    def feed(self, data: bytes) -> None:
        """Raises `InvalidBody`, `InvalidParameter` or `TooLarge`."""
        self._n_bytes += len(data)
        if self._n_bytes > self._max_file_bytes + AROUND_BYTES:
            raise self._too_large()
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidBody(f"the body is not a form: {error}") from None

    def check_whole(self) -> None:
        """Raises `InvalidBody` when the form was cut off, `InvalidParameter` when it has no file, or an empty one."""
        if not self._ended:
            raise InvalidBody("the form ends before its last boundary")
        if self.filename is None:
            raise InvalidParameter("'file' is required: the file to upload, with its name", param=FILE)
        if not self.n_file_bytes:
            raise InvalidParameter(f"file: {self.filename!r} is empty", param=FILE)

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        callbacks: Any = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_data,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            return MultipartParser(
                boundary,
                callbacks,
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
            )
        except FormParserError as error:
            raise InvalidBody(f"the body is not a form: {error}") from None

    def _begin_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_FIELDS:
            raise InvalidBody(f"the form has more than {MAX_FIELDS} fields")
        self._headers = {}
        self._value = bytearray()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _begin_data(self) -> None:
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (
            b"binary",
            b"7bit",
            b"8bit",
        ):
            raise InvalidBody("a part of the form has a transfer encoding; send its bytes as they are")
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise InvalidBody("a part of the form has no name: 'content-disposition: form-data; name=…'")
        self._field = _decoded(options[b"name"], "the name of a field")[:64]
        if self._field in self.fields or (self._field == FILE and self.filename is not None):
            raise InvalidParameter(f"{self._field!r} stands in the form twice", param=self._field)
        self._in_file = self._field == FILE
        if self._in_file:
            if not options.get(b"filename"):
                raise InvalidParameter("file: a file with its name was expected", param=FILE)
            self.filename = clean_filename(_decoded(options[b"filename"], "file: the file's name"))
        elif b"filename" in options:
            raise InvalidParameter(f"{self._field}: a file was not expected here", param=self._field)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.n_file_bytes += end - start
            if self.n_file_bytes > self._max_file_bytes:
                raise self._too_large()
            self.pending += data[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise InvalidParameter(
                f"{self._field}: more than {MAX_FIELD_BYTES} bytes in a field", param=self._field
            )

    def _end_part(self) -> None:
        if not self._in_file:
            self.fields[self._field] = _decoded(bytes(self._value), self._field)
        self._in_file = False

    def _end(self) -> None:
        self._ended = True

    def _too_large(self) -> TooLarge:
        named = f" {self.filename!r}" if self.filename else ""
        return TooLarge(f"the file{named} is larger than {self._max_file_bytes} bytes", param=FILE)


class Upload:
    """A form whose file is in a spool."""

    def __init__(self, form: Form, spool: SpooledTemporaryFile[bytes]) -> None:
        self.fields = form.fields
        self.filename = form.filename or ""
        self.size_bytes = form.n_file_bytes
        self._spool = spool

    def read(self) -> bytes:
        """The whole file; blocks."""
        self._spool.seek(0)
        return self._spool.read()


@asynccontextmanager
async def receive_upload(
    request: Request, folder: Path, max_file_bytes: int, *, patience_s: float, least_bytes_per_s: int
) -> AsyncIterator[Upload]:
    """`folder` holds what is too large for memory. An upload that brings less than `least_bytes_per_s` after its
    first `patience_s` is given up.

    Raises `InvalidBody`, `InvalidParameter`, `TooLarge`; `TimeoutError`; `ClientDisconnect`; `OSError` from a full disk.
    """
    boundary = _boundary_of(request)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_file_bytes + AROUND_BYTES:
        raise TooLarge(f"the file is larger than {max_file_bytes} bytes", param=FILE)
    form = Form(boundary, max_file_bytes)
    with SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder)) as spool:
        begun = asyncio.get_running_loop().time()
        async with asyncio.timeout(patience_s) as waiting:
            n_bytes = 0
            async for data in request.stream():
                form.feed(data)
                n_bytes += len(data)
                waiting.reschedule(begun + patience_s + n_bytes / least_bytes_per_s)
                if len(form.pending) >= _BUFFER_BYTES:
                    await _spill(form, spool)
        form.check_whole()
        await _spill(form, spool)
        yield Upload(form, spool)


async def _spill(form: Form, spool: SpooledTemporaryFile[bytes]) -> None:
    full, form.pending = form.pending, bytearray()
    await asyncio.to_thread(spool.write, full)


def _boundary_of(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidBody("a form was expected: 'content-type: multipart/form-data; boundary=…'")
    return options[b"boundary"]


def clean_filename(name: str) -> str:
    """Without folders. Raises `InvalidParameter` for what no prompt and no listing should have to show."""
    name = name.replace("\\", "/").rpartition("/")[2].strip()
    if name in ("", ".", ".."):
        raise InvalidParameter("file: a file with its name was expected", param=FILE)
    if len(name) > MAX_FILENAME_CHARACTERS:
        raise InvalidParameter(
            f"file: its name has {len(name)} characters; at most {MAX_FILENAME_CHARACTERS} are taken",
            param=FILE,
        )
    for character in name:
        kind = unicodedata.category(character)
        if character not in _JOINERS and (kind[0] == "C" or kind in ("Zl", "Zp")):
            raise InvalidParameter(
                f"file: its name {name!a} has a control or invisible character ({unicode_name(character)})",
                param=FILE,
            )
    return name


def unicode_name(character: str) -> str:
    return f"U+{ord(character):04X}"


def _decoded(text: bytes, what: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidBody(f"{what} is not UTF-8") from None

"""The snapshot file of an index.

    offset 0      4,096 bytes: magic, length and text of a JSON header, zeros, SHA-256 of all before it
    offset 4,096  the sections, one after the other; their names, lengths and SHA-256 stand in the header

Nothing is interpreted before its checksum was compared: FAISS reads what it is given with little suspicion.
Checksums tell damage, not forgery: the folder is as trusted as the store beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import SnapshotDamaged

Buffer = NDArray[Any]

_MAGIC = b"FWINDEX1"
_HEADER_BYTES = 4_096
_DIGEST_BYTES = 32
_AT_ONCE = 1 << 22
_STRAY_AFTER_S = 900.0


@dataclass(frozen=True, slots=True)
class Contents:
    facts: dict[str, Any]
    """What the sections are: JSON values, a few hundred bytes."""
    sections: dict[str, Iterable[Buffer]]
    """C-contiguous arrays, written one after the other."""


def write_snapshot(path: Path, contents: Contents) -> None:
    """All or nothing: written beside `path`, brought to the disk, then renamed. Raises `OSError`; the old
    snapshot is there until the new one is."""
    _remove_strays(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            _write(file, contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(file: BinaryIO, contents: Contents) -> None:
    file.seek(_HEADER_BYTES)
    written = []
    for name, parts in contents.sections.items():
        digest, n_bytes = hashlib.sha256(), 0
        for part in parts:
            data = _bytes(part)
            for first in range(0, len(data), _AT_ONCE):
                piece = data[first : first + _AT_ONCE]
                digest.update(piece)
                file.write(piece)
            n_bytes += len(data)
        written.append([name, n_bytes, digest.hexdigest()])
    text = json.dumps({"facts": contents.facts, "sections": written}).encode()
    header = _MAGIC + len(text).to_bytes(4, "little") + text
    if len(header) > _HEADER_BYTES - _DIGEST_BYTES:
        raise ValueError(f"a snapshot's facts take {len(header)} bytes, more than its header has")
    header = header.ljust(_HEADER_BYTES - _DIGEST_BYTES, b"\0")
    file.seek(0)
    file.write(header + hashlib.sha256(header).digest())


def _remove_strays(path: Path) -> None:
    """Left behind by writers that were killed; the young ones may be another process's."""
    for stray in path.parent.glob(f"{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - stray.stat().st_mtime > _STRAY_AFTER_S:
                stray.unlink()


class SnapshotFile:
    """An open snapshot: first its facts, then its sections, once. Every method raises `SnapshotDamaged`."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self._path = path
        self._file = file
        header = file.read(_HEADER_BYTES)
        body, digest = header[:-_DIGEST_BYTES], header[-_DIGEST_BYTES:]
        if len(header) != _HEADER_BYTES or hashlib.sha256(body).digest() != digest:
            raise self._damaged("its header")
        if not body.startswith(_MAGIC):
            raise self._damaged("its format")
        n = int.from_bytes(body[len(_MAGIC) : len(_MAGIC) + 4], "little")
        header_fields = json.loads(body[len(_MAGIC) + 4 : len(_MAGIC) + 4 + n])
        self.facts: dict[str, Any] = header_fields["facts"]
        self._sections: list[tuple[str, int, str]] = [tuple(entry) for entry in header_fields["sections"]]
        n_bytes = _HEADER_BYTES + sum(length for _, length, _ in self._sections)
        if os.fstat(file.fileno()).st_size != n_bytes:
            raise self._damaged("its length")

    def n_bytes(self, name: str) -> int:
        return sum(length for known, length, _ in self._sections if known == name)

    def read(self, into: dict[str, Buffer]) -> None:
        """Each section into a C-contiguous array of its own, of as many bytes; all of them are checked."""
        for name, length, expected in self._sections:
            view = _bytes(into[name])
            digest = hashlib.sha256()
            for first in range(0, length, _AT_ONCE):
                piece = view[first : first + _AT_ONCE]
                if self._file.readinto(piece) != len(piece):
                    raise self._damaged(f"the section {name}")
                digest.update(piece)
            if digest.hexdigest() != expected:
                raise self._damaged(f"the section {name}")

    def _damaged(self, what: str) -> SnapshotDamaged:
        return SnapshotDamaged(
            f"{self._path}: {what} is not what was written; the index is built anew from the store, "
            "and the next snapshot replaces this one"
        )


@contextlib.contextmanager
def open_snapshot(path: Path) -> Iterator[SnapshotFile | None]:
    """None where there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield SnapshotFile(path, file)


def _bytes(array: Buffer) -> memoryview:
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)

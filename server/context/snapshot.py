"""Ledgers in a file, from one run of the server to the next.

    "firstword ledger 1 little\\n"   version and byte order: what `entry.pack` makes depends on it
    length, fingerprint             what the ledgers were made for; of another one nothing is read
    number of entries
    length, length, key, value      each, in the order given
    BLAKE2b of all that

The checksum tells damage, not malice: whoever can write the file can write the server's other data too.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

_KIND = b"firstword ledger "
_VERSION = _KIND + f"1 {sys.byteorder}\n".encode()
_LENGTH = struct.Struct("<I")
_COUNT = struct.Struct("<Q")
_LENGTHS = struct.Struct("<II")
_CHECKSUM_BYTES = 32
_BUFFER_BYTES = 1 << 20


class SnapshotRefused(Exception):
    """Its message says what is wrong with the file."""


class OtherFingerprint(SnapshotRefused):
    """Whole, and of no use: it was made for something else."""


def write_snapshot(path: Path, fingerprint: bytes, entries: Sequence[tuple[bytes, bytes]]) -> None:
    """Replace `path`, readable by this user only. It is the old file or the new one, whatever happens meanwhile.

    Raises `OSError`.
    """
    unfinished = path.with_name(f".{path.name}.new")
    try:
        with suppress(FileNotFoundError):
            unfinished.unlink()  # left by a server that was killed here; its mode may be anything
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=_BUFFER_BYTES) as file:
            _write(file, fingerprint, entries)
            file.flush()
            os.fsync(descriptor)
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    _sync_folder(path.parent)


def _write(file: BinaryIO, fingerprint: bytes, entries: Sequence[tuple[bytes, bytes]]) -> None:
    checksum = blake2b(digest_size=_CHECKSUM_BYTES)
    pieces = [_VERSION, _LENGTH.pack(len(fingerprint)), fingerprint, _COUNT.pack(len(entries))]
    waiting_bytes = 0
    for key, value in entries:
        pieces += (_LENGTHS.pack(len(key), len(value)), key, value)
        waiting_bytes += len(value)
        if waiting_bytes >= _BUFFER_BYTES:
            block = b"".join(pieces)
            checksum.update(block)
            file.write(block)
            pieces, waiting_bytes = [], 0
    block = b"".join(pieces)
    checksum.update(block)
    file.write(block)
    file.write(checksum.digest())


def _sync_folder(folder: Path) -> None:
    """So that the new name outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_snapshot(path: Path, fingerprint: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries, in the order written. No length in the file is believed before the checksum was found right.

    Raises `SnapshotRefused`, and `OSError` for a file that is not there or cannot be read.
    """
    # A pipe of that name would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=_BUFFER_BYTES) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SnapshotRefused("it is no regular file")
        version = file.read(len(_VERSION))
        if not version.startswith(_KIND):
            raise SnapshotRefused("it holds something else")
        if version != _VERSION:
            raise SnapshotRefused("another version of Firstword or another kind of machine wrote it")
        _refuse_damaged(file, status.st_size)
        file.seek(len(_VERSION))
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if file.read(length) != fingerprint:
            raise OtherFingerprint("it was made for another model, prompt or knowledge")
        (n_entries,) = _COUNT.unpack(file.read(_COUNT.size))
        for _ in range(n_entries):
            key_bytes, value_bytes = _LENGTHS.unpack(file.read(_LENGTHS.size))
            yield file.read(key_bytes), file.read(value_bytes)


def _refuse_damaged(file: BinaryIO, n_bytes: int) -> None:
    checksum = blake2b(digest_size=_CHECKSUM_BYTES)
    file.seek(0)
    left = n_bytes - _CHECKSUM_BYTES
    while left > 0 and (block := file.read(min(left, _BUFFER_BYTES))):
        checksum.update(block)
        left -= len(block)
    if left or file.read() != checksum.digest():
        raise SnapshotRefused("it is cut short or damaged: its checksum is not that of its content")

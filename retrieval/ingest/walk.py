"""Which files an ingest is about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.parse.kinds import supported
from retrieval.parse.outline import visible

_MACHINES_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages"})
_MACHINES_FILES = frozenset(
    {"package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "packages.lock.json"}
)
_MACHINES_ENDINGS = (".min.js", ".min.css", ".bundle.js", ".min.mjs")
"""Of a folder with source code: what a machine wrote for machines, and would be most of the text."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    path: Path
    source: str
    """What identifies the document: the file's absolute path, links resolved."""
    filename: str
    """The path relative to the folder that was named, with `/`; of a file named itself, its name."""


@dataclass(slots=True)
class Walk:
    files: list[FoundFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    """The sources of the named folders that were read to the end."""
    missing: list[tuple[Path, str]] = field(default_factory=list)
    """Paths that could not be looked at, each with the reason."""
    n_skipped: int = 0


def walk(paths: Sequence[str | Path]) -> Walk:
    """Files in a fixed order, each once. A folder gives its supported files; hidden ones, other kinds,
    linked folders, and what package managers and bundlers wrote are passed over. A file named itself is taken whatever it is."""
    found = Walk()
    for path in map(Path, paths):
        if path.is_dir():
            _walk_folder(path, found)
        elif os.path.lexists(path):
            found.files.append(FoundFile(path, _source(path), _name(path.name)))
        else:
            found.missing.append((path, f"{path}: no such file or folder; check the path"))
    found.files = list({file.source: file for file in reversed(found.files)}.values())[::-1]
    return found


def _walk_folder(folder: Path, found: Walk) -> None:
    unread: list[OSError] = []
    for at, folders, names in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not _passed_over(name))
        for name in sorted(names):
            path = Path(at, name)
            if _passed_over(name) or not supported(path):
                found.n_skipped += 1
            else:
                found.files.append(FoundFile(path, _source(path), _name(path.relative_to(folder).as_posix())))
    for error in unread:
        path = Path(str(error.filename or folder))
        found.missing.append((path, f"{path}: {error.strerror}; check that the folder may be read"))
    if not unread:
        found.folders.append(_source(folder))


def _passed_over(name: str) -> bool:
    lower = name.lower()
    return (
        name.startswith(".")
        or lower in _MACHINES_FOLDERS
        or lower in _MACHINES_FILES
        or lower.endswith(_MACHINES_ENDINGS)
    )


def _source(path: Path) -> str:
    return _text(os.path.realpath(path))


def _name(name: str) -> str:
    """Names reach the prompt as provenance, so they are cleaned as retrieved text is."""
    return " ".join(visible(_text(name)).split())


def _text(name: str) -> str:
    """A file name's bytes need not be UTF-8; the store's text has to be."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")

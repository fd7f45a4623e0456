"""`firstword ingest --watch`: which files changed since they were last looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from server.errors import ConfigError

_SETTLE_MS = 400
"""Editors write a file in several steps."""


def changed_files(paths: Sequence[Path]) -> Iterator[set[str]]:
    """The sources of files below `paths` that changed or went away, each time that some did; until interrupted.

    Raises `ConfigError` when a path cannot be watched.
    """
    # A file named by itself may be replaced by another of its name, so its folder is what is watched.
    folders = {path if path.is_dir() else path.parent for path in paths}
    try:
        for changes in watch(*folders, debounce=_SETTLE_MS, step=100, raise_interrupt=True):
            yield {os.path.realpath(path) for _, path in changes}
    except OSError as error:
        raise ConfigError(
            f"{', '.join(map(str, folders))} cannot be watched: {error.strerror or error}",
            next_step="raise the system's limit of inotify watches, or ingest from time to time without --watch",
        ) from error

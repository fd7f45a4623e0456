"""`firstword ingest --watch`: which files changed since they were last looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from server.errors import ConfigError

_SETTLE_MS = 400
"""Editors write a file in several steps."""
_BREATH_MS = 500


def changed_files(paths: Sequence[Path]) -> Iterator[set[str]]:
    """The sources of files below `paths` that changed or went away, each time that some did; until interrupted.

    The first set is empty, and comes when changes begin to be seen: what is read after it is never out of date.
    Raises `ConfigError` when a path cannot be watched.
    """
    # A file named by itself may be replaced by another of its name, so its folder is what is watched.
    folders = {path if path.is_dir() else path.parent for path in paths}
    try:
        watching = watch(
            *folders,
            debounce=_SETTLE_MS,
            step=100,
            rust_timeout=_BREATH_MS,
            yield_on_timeout=True,
            raise_interrupt=True,
        )
        for at, changes in enumerate(watching):
            if changes or at == 0:
                yield {os.path.realpath(path) for _, path in changes}
    except OSError as error:
        raise ConfigError(
            f"{', '.join(map(str, folders))} cannot be watched: {error.strerror or error}",
            next_step="raise the system's limit of inotify watches, or ingest from time to time without --watch",
        ) from error

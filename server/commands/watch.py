"""`firstword ingest --watch`: which files changed since they were last looked at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType

from watchfiles import watch

from server.errors import ConfigError

_SETTLE_MS = 400
"""Editors write a file in several steps."""
_BREATH_MS = 500


def changed_files(paths: Sequence[Path]) -> Iterator[set[str]]:
    """The sources of files below `paths` that changed or went away, each time that some did; until interrupted.

    The first set is empty, and comes when changes begin to be seen: what is read after it is never out of date.
    Raises `ConfigError` when a path cannot be watched, `KeyboardInterrupt`. For the main thread.
    """
    # A file named by itself may be replaced by another of its name, so its folder is what is watched.
    folders = {path if path.is_dir() else path.parent for path in paths}
    try:
        with _remembered_interrupt() as interrupted:
            watching = watch(
                *folders,
                debounce=_SETTLE_MS,
                step=100,
                rust_timeout=_BREATH_MS,
                yield_on_timeout=True,
                raise_interrupt=True,
                stop_event=interrupted,
            )
            for at, changes in enumerate(watching):
                if changes or at == 0:
                    yield {os.path.realpath(path) for _, path in changes}
            raise KeyboardInterrupt
    except OSError as error:
        raise ConfigError(
            f"{', '.join(map(str, folders))} cannot be watched: {error.strerror or error}",
            next_step="raise the system's limit of inotify watches, or ingest from time to time without --watch",
        ) from error


@contextmanager
def _remembered_interrupt() -> Iterator[Event]:
    """Set by Ctrl-C, whose exception Python drops when it comes in the middle of a finaliser."""
    interrupted = Event()

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)

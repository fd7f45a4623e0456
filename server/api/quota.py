"""What a tenant may still keep, and how many uploads, downloads and searches are under way at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from retrieval.file_types import FileStore
from server.errors import Busy, QuotaExceeded
from server.sections.files import FileSettings

_RETRY_AFTER_S = 1.0


class Places:
    """Bounds how many calls of one kind are under way at once, of all tenants and of each."""

    def __init__(self, what: str, most: int, most_per_tenant: int) -> None:
        """`what`: for people, "uploads"."""
        self._what = what
        self._most = most
        self._most_per_tenant = most_per_tenant
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, tenant: str) -> Iterator[None]:
        """Raises `Busy`."""
        if self._taken[tenant] >= self._most_per_tenant:
            raise Busy(
                f"{self._most_per_tenant} {self._what} of one API key are under way already",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._taken.total() >= self._most:
            raise Busy(f"too many {self._what} are under way", retry_after_s=_RETRY_AFTER_S)
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]


class Desk:
    """What one application has of these; `desk_of` makes it with the first call."""

    def __init__(self) -> None:
        self.uploads = Places("uploads", 32, 8)
        """OpenAI's SDKs upload five files at a time."""
        self.storing = asyncio.Lock()
        """Of the uploads, one at a time is whole in memory."""
        self.downloads = Places("downloads", 32, 8)
        """Each holds its file in memory."""
        self.searches = Places("searches", 64, 32)
        """They share the embedder with turns, which are bounded by admission."""


def desk_of(request: Request) -> Desk:
    state = request.app.state
    if not hasattr(state, "desk"):
        state.desk = Desk()
    desk: Desk = state.desk
    return desk


def check_room_for_file(files: FileStore, settings: FileSettings, tenant: str, size_bytes: int) -> None:
    """Blocks. Raises `QuotaExceeded`."""
    kept = files.usage(tenant)
    if kept.n_files >= settings.max_files_per_tenant:
        raise QuotaExceeded(
            f"{settings.max_files_per_tenant} files are kept already, as many as one API key may have; delete some",
            param="file",
        )
    if kept.n_bytes + size_bytes > settings.max_bytes_per_tenant:
        raise QuotaExceeded(
            f"the files take {kept.n_bytes} bytes; with {size_bytes} more they would take more than the "
            f"{settings.max_bytes_per_tenant} that one API key may have; delete some",
            param="file",
        )


def check_room_for_store(files: FileStore, settings: FileSettings, tenant: str) -> None:
    """Blocks. Raises `QuotaExceeded`."""
    most = settings.max_stores_per_tenant
    if files.usage(tenant).n_stores >= most:
        raise QuotaExceeded(
            f"there are {most} vector stores already, as many as one API key may have; delete some"
        )

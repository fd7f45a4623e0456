"""The nouns of uploaded files, and the protocol of what keeps them: whose they are, and which vector stores they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from retrieval.filters import Attribute
from retrieval.types import Chunk, Document, Vectors

AttachmentStatus = Literal["in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class VectorStore:
    store_id: str
    tenant: str
    name: str
    created_at: float
    last_active_at: float
    metadata: Mapping[str, str]
    description: str = ""
    expires_after_days: int | None = None
    """Days after `last_active_at`."""
    n_by_status: Mapping[AttachmentStatus, int] = field(default_factory=dict)
    usage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file, as it came."""

    file_id: str
    tenant: str
    filename: str
    purpose: str
    size_bytes: int
    sha256: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a vector store, or on its way there."""

    store_id: str
    file_id: str
    tenant: str
    filename: str
    status: AttachmentStatus
    created_at: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    """None: the deployment's."""
    batch_id: str = ""
    document_id: str = ""
    usage_bytes: int = 0
    n_chunks: int = 0
    error_code: str = ""
    """`server_error`, `unsupported_file` or `invalid_file`, where it failed."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToAttach:
    """A file that is to be brought into a vector store."""

    file_id: str
    attributes: Mapping[str, Attribute] | None = None
    """None: those that it has there already, if any."""
    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    """None: the deployment's."""


@dataclass(frozen=True, slots=True)
class Batch:
    batch_id: str
    store_id: str
    created_at: float
    cancelled: bool
    n_by_status: Mapping[AttachmentStatus, int]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant keeps. `default` is nobody's and does not count."""

    n_files: int
    n_bytes: int
    """Of the uploaded files."""
    n_stores: int


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a list is asked for: after or before an id, at most `limit`.

    What was deleted a short while ago still is a place to go on from: clients delete while they read a list.
    """

    limit: int = 20
    newest_first: bool = True
    after: str = ""
    before: str = ""


class FileStore(Protocol):
    """Uploaded files, vector stores, and which files are in which. Everything is a tenant's: what another
    tenant has is as good as absent (`NotHere`). What a method returned from survives a crash."""

    def add_file(self, tenant: str, filename: str, purpose: str, data: bytes) -> StoredFile: ...
    def file(self, tenant: str, file_id: str) -> StoredFile: ...
    def file_data(self, tenant: str, file_id: str) -> bytes: ...
    def files(self, tenant: str, page: Page, purpose: str = "") -> tuple[list[StoredFile], bool]:
        """With whether there are more."""
        ...

    def delete_file(self, tenant: str, file_id: str) -> None:
        """It leaves every vector store, too."""
        ...

    def usage(self, tenant: str) -> Usage:
        """Cheap enough to ask before each upload."""
        ...

    def create_store(
        self,
        tenant: str,
        name: str,
        *,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> VectorStore: ...
    def store(self, tenant: str, store_id: str) -> VectorStore:
        """The tenant's, or the deployment's `default`, which everybody may read."""
        ...

    def stores(self, tenant: str, page: Page) -> tuple[list[VectorStore], bool]:
        """The tenant's and `default`."""
        ...

    def modify_store(
        self,
        tenant: str,
        store_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        expires: bool = True,
    ) -> VectorStore:
        """None leaves as it is; `expires=False` takes the expiry away."""
        ...

    def touch_store(self, store_id: str) -> None:
        """It was used now. At most once a minute is written."""
        ...

    def delete_store(self, tenant: str, store_id: str) -> None:
        """With its documents; the files stay. `default` cannot be deleted (`AlreadyHere` would be a lie: `NotHere`)."""
        ...

    def delete_expired(self, now: float) -> list[str]: ...

    def attach(
        self, tenant: str, store_id: str, files: Sequence[ToAttach], *, batch: bool = False
    ) -> tuple[list[Attachment], str]:
        """`in_progress`, with the new batch's id (empty without). A file that is attached already is ingested again;
        one that is named twice is attached as it is named first.

        Raises `NotHere` for the first unknown file, and nothing is attached.
        """
        ...

    def attachment(self, tenant: str, store_id: str, file_id: str) -> Attachment: ...
    def attachments(
        self,
        tenant: str,
        store_id: str,
        page: Page,
        *,
        status: AttachmentStatus | None = None,
        batch_id: str = "",
    ) -> tuple[list[Attachment], bool]: ...
    def pending(self, limit: int) -> list[Attachment]:
        """`in_progress`, of all tenants, oldest first: what is left to do, after a restart too."""
        ...

    def settle(
        self,
        attachment: Attachment,
        *,
        document_id: str = "",
        usage_bytes: int = 0,
        n_chunks: int = 0,
        error_code: str = "",
        error: str = "",
    ) -> bool:
        """Completed, or failed where there is an error; false when it was cancelled, removed or attached again."""
        ...

    def finish(
        self, attachment: Attachment, document: Document, chunks: Sequence[Chunk], vectors: Vectors
    ) -> bool:
        """`put` and `settle` in one transaction; false, and nothing is written, when it was cancelled, removed
        or attached again. The document gets the attributes that the attachment has by now."""
        ...

    def modify_attachment(
        self, tenant: str, store_id: str, file_id: str, attributes: Mapping[str, Attribute]
    ) -> Attachment:
        """Its document's attributes, too, in the same transaction."""
        ...

    def detach(self, tenant: str, store_id: str, file_id: str) -> None:
        """With its document; the file stays."""
        ...

    def batch(self, tenant: str, store_id: str, batch_id: str) -> Batch: ...
    def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> Batch:
        """What is in progress is cancelled."""
        ...

"""Files, vector stores and attachments in the file that the documents are in: committed and backed up as one."""

from __future__ import annotations

from retrieval.store.attachments import Attachments
from retrieval.store.claim import EmbedderClaim
from retrieval.store.connection import Connections
from retrieval.store.uploads import Uploads
from retrieval.store.vector_stores import VectorStores


class SqliteFileStore(Uploads, VectorStores, Attachments):
    """A `FileStore`, made by `SqliteStore` as its `files`. Every method may raise `StoreUnusable`."""

    def __init__(self, connections: Connections, claim: EmbedderClaim) -> None:
        self._connections = connections
        self._claim = claim

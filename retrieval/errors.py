"""What can go wrong in retrieval.

    RetrievalError
    ├── UnreadableDocument     the file cannot be opened or decoded, is damaged, encrypted or empty
    ├── UnsupportedDocument    no parser for this kind of file, or its content is of another kind than its name
    ├── DocumentTooLarge       above a limit: bytes, pages, what it unpacks to, chunks
    ├── ParsingStopped         the parser took too long or too much memory, or crashed; the server is unharmed
    ├── StoreFull              the disk has no room; nothing was half-written
    ├── StoreUnusable          the store's file is damaged, locked or of another version
    ├── EmbedderMissing        the embedding model is not at the given path
    ├── EmbedderMismatch       the store holds vectors of another embedding model
    ├── SnapshotDamaged        a snapshot file of an index is not what was written; it is built anew
    ├── IndexUnavailable       the index that was asked for cannot be made on this machine
    ├── RerankerMissing        the reranker is not at the given path
    ├── NotHere                there is no such store, file, attachment or batch
    ├── AlreadyHere            the id is taken
    └── InvalidFilter          a filter that cannot be read; `param` names the field

Every message names the file or model it is about and ends with the next step.
"""


class RetrievalError(Exception):
    """The base of all errors of this package."""


class UnreadableDocument(RetrievalError):
    pass


class UnsupportedDocument(RetrievalError):
    pass


class DocumentTooLarge(RetrievalError):
    pass


class StoreFull(RetrievalError):
    pass


class StoreUnusable(RetrievalError):
    pass


class EmbedderMissing(RetrievalError):
    pass


class EmbedderMismatch(RetrievalError):
    pass


class ParsingStopped(RetrievalError):
    pass


class SnapshotDamaged(RetrievalError):
    pass


class IndexUnavailable(RetrievalError):
    pass


class RerankerMissing(RetrievalError):
    pass


class NotHere(RetrievalError):
    """`kind` is what was asked for ("vector store", "file", ...); `name` its id."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name[:64]!r}")
        self.kind = kind
        self.name = name


class AlreadyHere(RetrievalError):
    pass


class InvalidFilter(RetrievalError):
    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param

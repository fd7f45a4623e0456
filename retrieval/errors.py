"""What can go wrong in retrieval.

    RetrievalError
    ├── UnreadableDocument     the file cannot be opened or decoded
    ├── UnsupportedDocument    no parser for this kind of file
    ├── DocumentTooLarge       above the size limit
    ├── StoreFull              the disk has no room; nothing was half-written
    ├── StoreUnusable          the store's file is damaged, locked or of another version
    ├── EmbedderMissing        the embedding model is not at the given path
    └── EmbedderMismatch       the store holds vectors of another embedding model

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

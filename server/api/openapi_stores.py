"""The endpoints of files and vector stores in the published document."""

from __future__ import annotations

from retrieval import filters
from server import errors
from server.api.files import MOST_LISTED, PURPOSES
from server.api.openapi_operation import (
    ONCE_OPEN,
    SCHEMAS,
    Errors,
    Schema,
    any_of,
    json_content,
    operation,
    parameter,
)
from server.settings import Settings

_READ: Errors = (*ONCE_OPEN, errors.NotFound, errors.Unavailable)
_LIST: Errors = (*_READ, errors.InvalidParameter, errors.UnknownParameter)
_CHANGE: Errors = (*_READ, errors.Forbidden, errors.StorageFull)
_BODY: Errors = (
    errors.InvalidBody,
    errors.InvalidParameter,
    errors.UnknownParameter,
    errors.RequestTimeout,
    errors.TooLarge,
)
_CREATE: Errors = (*_CHANGE, *_BODY, errors.QuotaExceeded)

_DOWNLOAD_HEADERS = ("content-disposition", "x-content-type-options", "content-security-policy")
_STATUS: Schema = {"enum": ["in_progress", "completed", "failed", "cancelled"]}
_CURSOR: Schema = {"type": "string", "maxLength": 256}

_ORDERING = ["gt", "gte", "lt", "lte"]
_OF_MANY = ["in", "nin"]


def paths(has_keys: bool) -> Schema:
    def at(
        summary: str,
        shape: str,
        kinds: Errors,
        *ids: str,
        body: str = "",
        query: tuple[Schema, ...] = (),
    ) -> Schema:
        parameters = (*(parameter(name) for name in ids), *query)
        described = operation(summary, json_content(shape), kinds, parameters, has_keys=has_keys)
        if body:
            described["requestBody"] = {"required": True, "content": json_content(body)}
        return described

    store, file, batch = "vector_store_id", "file_id", "batch_id"
    page, changed = _page(100, 20), (*_CHANGE, *_BODY)
    files, stores = "/v1/files", "/v1/vector_stores"
    one = stores + "/{vector_store_id}"
    of_store, batches = one + "/files", one + "/file_batches"
    by_status = (parameter("filter", "query", _STATUS), *page)
    return {
        files: {
            "post": _upload(has_keys),
            "get": at("The uploaded files", "FileList", _LIST, query=_file_page()),
        },
        files + "/{file_id}": {
            "get": at("One file", "FileObject", _READ, file),
            "delete": at("Delete a file, from every vector store too", "FileDeleted", _CHANGE, file),
        },
        files + "/{file_id}/content": {"get": _download(has_keys)},
        stores: {
            "post": at("A new vector store", "VectorStoreObject", _CREATE, body="CreateVectorStore"),
            "get": at("The vector stores", "VectorStoreList", _LIST, query=(*page, _before())),
        },
        one: {
            "get": at("One vector store", "VectorStoreObject", _READ, store),
            "post": at(
                "Change a vector store", "VectorStoreObject", changed, store, body="ModifyVectorStore"
            ),
            "delete": at("Delete a vector store; its files stay", "VectorStoreDeleted", _CHANGE, store),
        },
        one + "/search": {
            "post": at(
                "Search a vector store",
                "SearchResults",
                (*_READ, *_BODY, errors.Busy),
                store,
                body="SearchVectorStore",
            )
        },
        of_store: {
            "post": at(
                "Put a file into a vector store", "VectorStoreFile", changed, store, body="AttachFile"
            ),
            "get": at(
                "Files in a vector store", "VectorStoreFileList", _LIST, store, query=(*by_status, _before())
            ),
        },
        of_store + "/{file_id}": {
            "get": at("One file in a vector store", "VectorStoreFile", _READ, store, file),
            "post": at(
                "Change a file's attributes", "VectorStoreFile", changed, store, file, body="ModifyFile"
            ),
            "delete": at("Take a file out of a vector store", "VectorStoreFileDeleted", _CHANGE, store, file),
        },
        of_store + "/{file_id}/content": {
            "get": at("The text that was found in a file", "FileContent", _READ, store, file)
        },
        batches: {
            "post": at(
                "Put many files into a vector store", "FileBatch", changed, store, body="CreateFileBatch"
            )
        },
        batches + "/{batch_id}": {"get": at("One batch of files", "FileBatch", _READ, store, batch)},
        batches + "/{batch_id}/cancel": {
            "post": at("Cancel what a batch has not done yet", "FileBatch", _CHANGE, store, batch)
        },
        batches + "/{batch_id}/files": {
            "get": at(
                "The files of a batch",
                "VectorStoreFileList",
                _LIST,
                store,
                batch,
                query=(*by_status, _before()),
            )
        },
    }


def complete(schemas: Schema, settings: Settings) -> None:
    """What the structs cannot say: filters, this deployment's bounds, which fields exclude one another."""
    schemas["ComparisonFilter"] = _comparison_filter()
    schemas["CompoundFilter"] = {
        "type": "object",
        "description": f"Nested at most {filters.MAX_DEPTH} deep, with {filters.MAX_COMPARISONS} comparisons in all.",
        "properties": {
            "type": {"enum": ["and", "or"]},
            "filters": {
                "type": "array",
                "minItems": 1,
                "items": any_of("ComparisonFilter", "CompoundFilter"),
            },
        },
        "required": ["type", "filters"],
        "additionalProperties": False,
    }
    either = [{"$ref": SCHEMAS + name} for name in ("ComparisonFilter", "CompoundFilter")]
    for shape in ("SearchVectorStore", "RetrievalOptions"):
        schemas[shape]["properties"]["filters"]["anyOf"] = [*either, {"type": "null"}]
    most = {"maxItems": settings.files.max_files_per_batch, "uniqueItems": True}
    for shape, name in (
        ("CreateVectorStore", "file_ids"),
        ("CreateFileBatch", "file_ids"),
        ("CreateFileBatch", "files"),
    ):
        schemas[shape]["properties"][name]["anyOf"][0].update(most)
    absent, present = {"type": "null"}, {"type": "array"}
    schemas["CreateFileBatch"]["oneOf"] = [
        {"properties": {"file_ids": present, "files": absent}, "required": ["file_ids"]},
        {
            "properties": {
                "files": present,
                "file_ids": absent,
                "attributes": absent,
                "chunking_strategy": absent,
            },
            "required": ["files"],
        },
    ]


def _comparison_filter() -> Schema:
    single: Schema = {"type": ["string", "number", "boolean"]}
    many: Schema = {"type": "array", "minItems": 1, "maxItems": filters.MAX_VALUES, "items": single}
    kind: Schema = {"enum": ["eq", "ne", *_ORDERING, *_OF_MANY]}

    def when(kinds: list[str], value: Schema) -> Schema:
        return {"if": {"properties": {"type": {"enum": kinds}}}, "then": {"properties": {"value": value}}}

    return {
        "type": "object",
        "properties": {
            "type": kind,
            "key": {"type": "string", "minLength": 1, "maxLength": filters.MAX_KEY_CHARACTERS},
            "value": {"anyOf": [single, many]},
        },
        "required": ["type", "key", "value"],
        "additionalProperties": False,
        "allOf": [
            when(["eq", "ne"], single),
            when(_ORDERING, {"type": ["string", "number"]}),
            when(_OF_MANY, many),
        ],
    }


def _upload(has_keys: bool) -> Schema:
    upload = operation(
        "Upload a file", json_content("FileObject"), (*_CREATE, errors.Busy), has_keys=has_keys
    )
    form: Schema = {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "With its name."},
            "purpose": {"type": "string", "enum": [*PURPOSES]},
        },
        "required": ["file", "purpose"],
        "additionalProperties": False,
    }
    upload["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return upload


def _download(has_keys: bool) -> Schema:
    content: Schema = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return operation(
        "A file as it came",
        content,
        (*_READ, errors.Busy),
        (parameter("file_id"),),
        headers=_DOWNLOAD_HEADERS,
        has_keys=has_keys,
    )


def _page(most: int, default: int) -> tuple[Schema, ...]:
    bounds: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return (
        parameter("limit", "query", bounds),
        parameter("order", "query", {"enum": ["asc", "desc"], "default": "desc"}),
        parameter("after", "query", _CURSOR),
    )


def _before() -> Schema:
    return parameter("before", "query", _CURSOR)


def _file_page() -> tuple[Schema, ...]:
    return (*_page(MOST_LISTED, MOST_LISTED), parameter("purpose", "query", {"type": "string"}))

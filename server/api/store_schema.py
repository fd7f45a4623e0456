"""What the bodies of the vector store endpoints may hold; `openapi_stores.py` publishes it.

https://platform.openai.com/docs/api-reference/vector-stores
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.errors import InvalidParameter

MOST_RESULTS = 50
MOST_QUERIES = 16
MAX_QUERY_CHARACTERS = 4_096

_Key = Annotated[str, Meta(min_length=1, max_length=64)]
_Text = Annotated[str, Meta(max_length=512)]
_Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(max_length=256)]
Metadata = Annotated[dict[_Key, _Text], Meta(max_length=16)]
Attributes = Annotated[dict[_Key, _Text | _Whole | float | bool], Meta(max_length=16)]
Question = Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_CHARACTERS)]


class ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Meta(ge=1, le=365)]


class ChunkSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_chunk_size_tokens: Annotated[int, Meta(ge=100, le=4_096)]
    chunk_overlap_tokens: Annotated[int, Meta(ge=0, le=2_048)]
    """At most half of `max_chunk_size_tokens`."""


class AutoChunking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="auto"):
    """As the deployment is configured."""


class StaticChunking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="static"):
    static: ChunkSizes


class CreateVectorStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name | None = None
    description: Annotated[str, Meta(max_length=2_048)] | None = None
    file_ids: list[Id] | None = None
    """Files that are attached at once; none may stand there twice."""
    chunking_strategy: AutoChunking | StaticChunking | None = None
    """Of the files in `file_ids`."""
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class ModifyVectorStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field that is absent leaves what it names as it is."""

    name: Name | None = None
    expires_after: ExpiresAfter | UnsetType | None = UNSET
    """Null takes the expiry away."""
    metadata: Metadata | UnsetType | None = UNSET
    """Replaces what was there; null leaves nothing."""


class AttachFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    file_id: Id
    attributes: Attributes | None = None
    chunking_strategy: AutoChunking | StaticChunking | None = None


class ModifyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attributes: Attributes | None
    """Replaces what was there; null leaves nothing."""


class CreateFileBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either `file_ids`, or `files` with attributes of their own. No file may stand there twice."""

    file_ids: Annotated[list[Id], Meta(min_length=1)] | None = None
    files: Annotated[list[AttachFile], Meta(min_length=1)] | None = None
    attributes: Attributes | None = None
    """Of all files in `file_ids`."""
    chunking_strategy: AutoChunking | StaticChunking | None = None
    """Of all files in `file_ids`."""


class RankingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ranker: Literal["auto", "none", "default-2024-11-15"] | None = None
    """`none`: no reranking. The others: the deployment's reranker, where it has one."""
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Results below it are left out."""


class SearchVectorStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Question | Annotated[list[Question], Meta(min_length=1, max_length=MOST_QUERIES)]
    """Of several, each is searched for, and a passage counts as its best score says."""
    max_num_results: Annotated[int, Meta(ge=1, le=MOST_RESULTS)] | None = None
    """Absent: 10."""
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = None
    """Changes nothing: a query is searched for as it stands."""


REQUESTS: tuple[type[msgspec.Struct], ...] = (
    CreateVectorStore,
    ModifyVectorStore,
    AttachFile,
    ModifyFile,
    CreateFileBatch,
    SearchVectorStore,
)


def chunk_sizes(
    strategy: AutoChunking | StaticChunking | None, param: str = "chunking_strategy"
) -> tuple[int | None, int | None]:
    """Tokens of a chunk and of an overlap; None: the deployment's. Raises `InvalidParameter`."""
    if not isinstance(strategy, StaticChunking):
        return None, None
    size, overlap = strategy.static.max_chunk_size_tokens, strategy.static.chunk_overlap_tokens
    if 2 * overlap > size:
        field = f"{param}.static.chunk_overlap_tokens"
        raise InvalidParameter(
            f"{field}: at most half of max_chunk_size_tokens ({size}) is taken", param=field
        )
    return size, overlap


def check_file_ids(file_ids: Sequence[str], param: str, most: int) -> None:
    """Raises `InvalidParameter` for too many, or for one that stands there twice."""
    if len(file_ids) > most:
        raise InvalidParameter(
            f"{param}: {len(file_ids)} files; at most {most} are taken at once", param=param
        )
    seen: dict[str, int] = {}
    for at, file_id in enumerate(file_ids):
        if file_id in seen:
            field = f"{param}[{at}]"
            raise InvalidParameter(
                f"{field}: {file_id[:64]!r} stands at {param}[{seen[file_id]}] already", param=field
            )
        seen[file_id] = at

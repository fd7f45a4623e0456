"""`POST /v1/vector_stores/{id}/search`: the passages of one vector store that fit a query best."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import InvalidFilter, RetrievalError
from retrieval.filters import Filter, parse_filter
from retrieval.types import Passage, Query, Scope, SearchTiming
from server.api.body import read_struct
from server.api.quota import desk_of
from server.api.responses import json_response
from server.api.storage import caller, open_store, stored
from server.api.store_objects import search_results
from server.api.store_schema import RankingOptions, SearchVectorStore
from server.errors import InvalidParameter, Unavailable
from server.parts import Parts

DEFAULT_RESULTS = 10


async def search_vector_store(request: Request) -> Response:
    parts, tenant = caller(request)
    store_id = request.path_params["vector_store_id"]
    asked = await read_struct(request, parts.settings, SearchVectorStore)
    queries = [asked.query] if isinstance(asked.query, str) else asked.query
    for at, query in enumerate(queries):
        if not query.strip():
            param = "query" if isinstance(asked.query, str) else f"query[{at}]"
            raise InvalidParameter(f"{param}: it is blank", param=param)
    scope = Scope((store_id,), _filter(asked))
    with desk_of(request).searches.take(tenant):
        await stored(open_store, parts.files, tenant, store_id)
        passages, timing = await _search(parts, queries, scope, asked)
    return json_response(search_results(queries, passages, timing))


def _filter(asked: SearchVectorStore) -> Filter | None:
    if asked.filters is None:
        return None
    try:
        return parse_filter(asked.filters)
    except InvalidFilter as error:
        raise InvalidParameter(str(error), param=error.param) from error


async def _search(
    parts: Parts, queries: Sequence[str], scope: Scope, asked: SearchVectorStore
) -> tuple[list[Passage], SearchTiming]:
    """Raises `Unavailable`."""
    n_results = asked.max_num_results or DEFAULT_RESULTS
    ranking = asked.ranking_options or RankingOptions()
    searches = (
        parts.retriever.search(Query(query), scope, n_results, ranking.score_threshold, ranker=ranking.ranker)
        for query in queries
    )
    try:
        found = await asyncio.gather(*searches)
    except RetrievalError as error:
        raise Unavailable(f"the documents cannot be searched: {error}", retry_after_s=5) from error
    if len(found) == 1:
        return found[0]
    best: dict[str, Passage] = {}
    for passage in (passage for passages, _ in found for passage in passages):
        held = best.get(passage.chunk_id)
        if held is None or passage.score > held.score:
            best[passage.chunk_id] = passage
    ranked = sorted(best.values(), key=lambda passage: (-passage.score, passage.key))
    return ranked[:n_results], _longest([timing for _, timing in found])


def _longest(timings: Sequence[SearchTiming]) -> SearchTiming:
    """They ran side by side."""
    return SearchTiming(
        max(timing.embed_ms for timing in timings),
        max(timing.search_ms for timing in timings),
        max(timing.rerank_ms for timing in timings),
    )

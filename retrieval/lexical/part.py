"""The words of one vector store: a tantivy index in memory, with statistics of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval.lexical.text import analyzer, prepared

_WRITER_BYTES = 15_000_000
"""What tantivy asks for at the least; taken while a change is written, not while the writer waits."""
_CHUNKS_BETWEEN_YIELDS = 8
"""Taking a chunk over holds the GIL for some tens of microseconds."""


class Part:
    """Written by one thread; `searcher()` gives what any other may search meanwhile: one complete state."""

    def __init__(self, language: str) -> None:
        import tantivy

        self._tantivy = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", stored=False, tokenizer_name="firstword", index_option="freq")
        # Signed: `delete_documents_by_term` looks for whole numbers as signed and passes over unsigned fields.
        builder.add_integer_field("key", indexed=True, fast=True)
        builder.add_integer_field("document", indexed=True, fast=True)
        self.schema = builder.build()
        self._index = tantivy.Index(self.schema)
        self._index.register_tokenizer("firstword", analyzer(language))
        self._writer: Any = None

    def write(self, gone: Iterable[int], added: Iterable[tuple[int, int, str]]) -> None:
        """Take keys out and (key, document, text) in; `searcher()` shows all of it afterwards."""
        if self._writer is None:
            self._writer = self._index.writer(_WRITER_BYTES, 1)
        for key in gone:
            self._writer.delete_documents_by_term("key", key)
        for row, (key, document, text) in enumerate(added):
            entry = self._tantivy.Document()
            entry.add_text("text", prepared(text))
            entry.add_integer("key", key)
            entry.add_integer("document", document)
            self._writer.add_document(entry)
            if row % _CHUNKS_BETWEEN_YIELDS == 0:
                time.sleep(0)
        self._writer.commit()
        self._index.reload()

    def searcher(self) -> Any:
        return self._index.searcher()

    def rest(self) -> None:
        """Let the writer go, once it has merged its small segments: it holds six threads."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.wait_merging_threads()


class Search:
    """One query against one searcher of a part."""

    def __init__(self, tantivy: Any, schema: Any, searcher: Any, terms: Mapping[str, float]) -> None:
        self._searcher = searcher
        self._most = sum(
            weight * _idf(searcher.doc_freq("text", term), searcher.num_docs)
            for term, weight in terms.items()
        )
        should = [
            (tantivy.Occur.Should, tantivy.Query.boost_query(_term(tantivy, schema, term), weight))
            for term, weight in terms.items()
        ]
        self._tantivy = tantivy
        self._query = tantivy.Query.boolean_query(should)

    def best(self, n: int) -> list[tuple[int, int, float]]:
        """(key, document, score), best first; equal scores in no order.

        The score is BM25 by what a chunk of average length would have that holds each term once. So it says
        how much of the query a chunk holds, rare words counting more, and is comparable between queries.
        """
        return self._found(self._query, n)

    def best_among(self, documents: Any, n: int) -> list[tuple[int, int, float]]:
        """As `best`; `documents` is a query that they must match."""
        must = self._tantivy.Occur.Must
        query = self._tantivy.Query.boolean_query([(must, self._query), (must, documents)])
        return self._found(query, n)

    def _found(self, query: Any, n: int) -> list[tuple[int, int, float]]:
        hits = self._searcher.search(query, n, count=False).hits
        if not hits:
            return []
        addresses = [address for _, address in hits]
        keys = self._searcher.fast_field_values("key", addresses)
        documents = self._searcher.fast_field_values("document", addresses)
        # The order in which a score's summands are added is not fixed; its last digits are noise.
        return [
            (key, document, round(score / self._most, 6))
            for (score, _), key, document in zip(hits, keys, documents, strict=True)
        ]


def documents_query(tantivy: Any, schema: Any, documents: Sequence[int]) -> Any:
    """Matches the chunks of these documents and adds nothing to their scores."""
    return tantivy.Query.const_score_query(
        tantivy.Query.term_set_query(schema, "document", list(documents)), 0.0
    )


def _idf(n_with_term: int, n_chunks: int) -> float:
    """As tantivy's, which is Lucene's: never negative. A word that no chunk holds counts as the rarest."""
    n_with_term = min(n_with_term, n_chunks)
    return math.log1p((n_chunks - n_with_term + 0.5) / (n_with_term + 0.5))


def _term(tantivy: Any, schema: Any, term: str) -> Any:
    return tantivy.Query.term_query(schema, "text", term, "freq")

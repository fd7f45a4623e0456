"""What `firstword eval retrieval` reports: every variant's ranking of every query, and what it adds up to."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.report.cells import milliseconds, share
from retrieval.search.retriever import SearchOptions
from server.errors import ConfigError
from server.evaluation.ranking import Mean, auc, mean, ndcg_at, recall_at, reciprocal_rank

SCHEMA = "firstword/evaluation-retrieval/1"
RANKS = (1, 3, 5, 10)


class Variant(msgspec.Struct, frozen=True):
    name: str
    options: SearchOptions


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one variant found for one conversation's last turn."""

    conversation: str
    collection: str
    passages: tuple[str, ...]
    """Ids, best first."""
    relevant: tuple[str, ...]
    """Empty where the collection holds no answer, or none is known."""
    top_score: float | None
    embed_ms: float
    search_ms: float
    rerank_ms: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    queries: int
    recall: dict[str, Mean]
    """By rank: "1", "3", "5", "10"."""
    ndcg: dict[str, Mean]
    mrr: Mean


class VariantReport(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    options: SearchOptions
    all: Figures
    by_collection: dict[str, Figures]
    answerable_auc: float | None
    """How often the best score of an answerable question is above that of an unanswerable one."""
    latency_ms: dict[str, dict[str, float]]
    """Of `embed`, `search`, `rerank` and `total`: p50, p90, p99."""
    found: tuple[Found, ...]


class RetrievalReport(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = SCHEMA
    tool: str
    machine: str
    embedder: str
    data: str
    data_sha256: str
    passages: int
    chunks: int
    chunk_tokens: int
    overlap_tokens: int
    variants: tuple[VariantReport, ...]


def report_of(variant: Variant, found: Sequence[Found]) -> VariantReport:
    judged = [each for each in found if each.relevant]
    if not judged:
        raise ConfigError(
            "no conversation names relevant passages",
            next_step="give `relevant` to the lines of conversations.jsonl; docs/evaluation.md says how",
        )
    collections = sorted({each.collection for each in judged})
    scored = [each for each in found if each.top_score is not None]
    return VariantReport(
        name=variant.name,
        options=variant.options,
        all=figures_of(judged),
        by_collection={
            name: figures_of([each for each in judged if each.collection == name]) for name in collections
        },
        answerable_auc=auc(
            [each.top_score or 0.0 for each in scored if each.relevant],
            [each.top_score or 0.0 for each in scored if not each.relevant],
        ),
        latency_ms=_latencies(found),
        found=tuple(found),
    )


def figures_of(judged: Sequence[Found]) -> Figures:
    return Figures(
        queries=len(judged),
        recall={str(k): mean([recall_at(k, each.passages, each.relevant) for each in judged]) for k in RANKS},
        ndcg={str(k): mean([ndcg_at(k, each.passages, each.relevant) for each in judged]) for k in RANKS},
        mrr=mean([reciprocal_rank(each.passages, each.relevant) for each in judged]),
    )


def _latencies(found: Sequence[Found]) -> dict[str, dict[str, float]]:
    phases = {
        "embed": [each.embed_ms for each in found],
        "search": [each.search_ms for each in found],
        "rerank": [each.rerank_ms for each in found],
        "total": [each.embed_ms + each.search_ms + each.rerank_ms for each in found],
    }
    return {
        name: {f"p{percent}": float(np.percentile(values, percent)) for percent in (50, 90, 99)}
        for name, values in phases.items()
    }


def print_report(report: RetrievalReport, console: Console) -> None:
    first = report.variants[0].all
    title = f"{first.queries} queries over {report.passages} passages in {report.chunks} chunks"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("search")
    for head in ("recall@5", "nDCG@5", "recall@10", "MRR", "AUC", "p50, ms", "p99, ms"):
        table.add_column(head, justify="right")
    for variant in report.variants:
        total = variant.latency_ms["total"]
        table.add_row(
            variant.name,
            _with_interval(variant.all.recall["5"]),
            _with_interval(variant.all.ndcg["5"]),
            share(variant.all.recall["10"].value),
            share(variant.all.mrr.value),
            "" if variant.answerable_auc is None else share(variant.answerable_auc),
            milliseconds(total["p50"]),
            milliseconds(total["p99"]),
        )
    console.print(table)


def _with_interval(found: Mean) -> str:
    shown = f"{found.value:.3f}"
    return shown if found.ci is None else f"{shown} ({found.ci.low:.3f} to {found.ci.high:.3f})"

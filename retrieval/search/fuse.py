"""From ranked lists to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RRF_K = 60
LEXICAL_WEIGHT = 0.4


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[int]], weights: Sequence[float] | None = None, k: int = RRF_K
) -> list[tuple[int, float]]:
    """(key, score in (0, 1]), best first; equal scores by key. First in every list is 1.

    Cormack, Clarke, Büttcher: Reciprocal rank fusion outperforms Condorcet and individual rank learning methods
    (SIGIR 2009).
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, key in enumerate(ranking):
            scores[key] = scores.get(key, 0.0) + weight * (k + 1) / (k + 1 + rank)
    whole = sum(weights)
    return _ordered({key: score / whole for key, score in scores.items()}) if whole > 0 else []


def weighted_sum(
    dense: Mapping[int, float], lexical: Mapping[int, float], lexical_weight: float = LEXICAL_WEIGHT
) -> list[tuple[int, float]]:
    """(key, score in [0, 1]), best first; equal scores by key.

    `dense` holds the cosine of every candidate, `lexical` the share of the query that those hold which have
    a word of it. The score is `(1 - w) * cosine + w * share`, each cut to [0, 1]: it depends on nothing but the
    query and the chunk (and how rare the words are), so a floor means the same for every query.
    """
    return _ordered(
        {
            key: (1 - lexical_weight) * _cut(cosine) + lexical_weight * _cut(lexical.get(key, 0.0))
            for key, cosine in dense.items()
        }
    )


def _cut(score: float) -> float:
    # Written so that `nan`, the score of a chunk that went meanwhile, becomes 0.
    return min(score, 1.0) if score > 0 else 0.0


def _ordered(scores: Mapping[int, float]) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))

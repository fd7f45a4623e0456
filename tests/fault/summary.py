"""Figures of a suite, told in words."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest rank; no value is made up."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quantiles(values_ms: Sequence[float]) -> dict[str, str]:
    if not values_ms:
        return {"count": "0"}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    told = {name: f"{quantile(values_ms, share):.1f} ms" for name, share in shares.items()}
    return {"count": str(len(values_ms))} | told

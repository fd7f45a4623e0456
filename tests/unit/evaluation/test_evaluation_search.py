"""`firstword eval retrieval` on data small enough to work its figures out by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_made import conversation, write_data
from rich.console import Console

from gateways import MakeSettings
from server.context.template import ChatTemplate
from server.errors import ConfigError
from server.evaluation import search
from server.evaluation.search import RetrievalOrder, evaluate_retrieval, variants_of

WHOLE = RetrievalOrder(modes=("dense", "lexical"), query_forms=("last",), whole=True)


@pytest.fixture(autouse=True)
def _session_template(template: ChatTemplate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes longer to load than all else here."""
    monkeypatch.setattr(search, "ChatTemplate", lambda _model: template)


def asked(name: str, *relevant: str, collection: str = "tax", question: str) -> dict[str, Any]:
    told = conversation(name, collection, 1, relevant)
    told["turns"][0]["user"] = question
    return told


def test_each_variant_is_measured_as_if_by_hand(make_settings: MakeSettings, tmp_path: Path) -> None:
    conversations = [
        asked("first", "tax-1", question="income tax returns due fifteenth April"),
        asked("second", "tax-2", "tax-1", question="a late return costs a penalty of five percent per month"),
        asked("sea", "sea-2", collection="sea", question="spring tide at new moon and at full moon"),
        asked("missed", "tax-3", question="income tax returns fifteenth April year"),
        asked("unanswerable", collection="sea", question="zebras"),
    ]
    data = write_data(tmp_path / "data", conversations)
    output, shown = tmp_path / "report.json", io.StringIO()
    console = Console(file=shown, width=200)
    assert evaluate_retrieval(make_settings(), data, WHOLE, output, console) == 0
    report = json.loads(output.read_text())
    assert (report["passages"], report["chunks"]) == (5, 5)
    assert [variant["name"] for variant in report["variants"]] == [
        "as configured (hybrid, weighted)",
        "dense, last",
        "lexical, last",
    ]
    for variant in report["variants"]:
        best = {found["conversation"]: found["passages"][:1] for found in variant["found"]}
        assert best["first"] == best["missed"] == ["tax-1"]
        assert best["second"] == ["tax-2"]
        assert best["sea"] == ["sea-2"]
        for found in variant["found"]:
            assert {name.split("-")[0] for name in found["passages"]} <= {found["collection"]}
        assert variant["all"]["queries"] == 4
        # Of second one of two is first; of missed none.
        assert variant["all"]["recall"]["1"]["value"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
        assert variant["all"]["ndcg"]["1"]["value"] == pytest.approx((1 + 1 + 1 + 0) / 4)
        assert set(variant["by_collection"]) == {"tax", "sea"}
        assert variant["by_collection"]["sea"]["mrr"]["value"] == 1.0
        assert variant["latency_ms"]["total"]["p50"] > 0
        assert variant["name"] in shown.getvalue()
    dense = report["variants"][1]
    # All of a collection are among ten, so the rest is known from the ranks.
    assert dense["all"]["recall"]["10"]["value"] == 1.0
    (missed,) = [found for found in dense["found"] if found["conversation"] == "missed"]
    rank = missed["passages"].index("tax-3") + 1
    assert dense["all"]["mrr"]["value"] == pytest.approx((1 + 1 + 1 + 1 / rank) / 4)
    assert dense["answerable_auc"] == 1.0
    assert not make_settings().data_path.exists(), "what the deployment has is left alone"


def test_long_passages_are_cut_and_named_once(make_settings: MakeSettings, tmp_path: Path) -> None:
    long = " ".join(f"Sentence number {n} is about quinces and about number {n}." for n in range(60))
    passages = [
        {"id": "long", "collection": "tax", "text": long},
        {"id": "short", "collection": "tax", "text": "Quinces are yellow."},
    ]
    data = write_data(tmp_path / "data", [asked("c", "long", question="quinces number 7")], passages)
    output = tmp_path / "report.json"
    order = RetrievalOrder(modes=(), query_forms=(), whole=False)
    settings = make_settings(retrieval__chunk_tokens=48, retrieval__chunk_overlap_tokens=0)
    evaluate_retrieval(settings, data, order, output, Console(file=io.StringIO()))
    report = json.loads(output.read_text())
    assert report["chunks"] > 10
    (found,) = report["variants"][0]["found"]
    assert len(found["passages"]) == len(set(found["passages"]))


def test_what_cannot_be_measured_is_said_at_once(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    with pytest.raises(ConfigError, match="--modes"):
        variants_of(settings, RetrievalOrder(("sparse",), ("last",), whole=True))
    with pytest.raises(ConfigError, match="--query-forms"):
        variants_of(settings, RetrievalOrder(("dense",), ("first",), whole=True))
    data = write_data(tmp_path / "data", [conversation("c")])
    with pytest.raises(ConfigError, match="relevant"):
        evaluate_retrieval(settings, data, WHOLE, tmp_path / "report.json", Console(file=io.StringIO()))
    with pytest.raises(ConfigError, match="no such folder"):
        evaluate_retrieval(settings, data, WHOLE, tmp_path / "none" / "r.json", Console(file=io.StringIO()))

"""What an operator sees: health, metrics, the turn log, models; on the simulated engine."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from gateways import Gateway, MakeSettings, running
from retrieval.ingest.files import ingest
from retrieval.ingest.intake import DirectPreparer, Intake
from server.app import build_app
from server.knowledge import make_embedder
from server.telemetry.timing import PHASES
from wire import ask, question

pytestmark = pytest.mark.anyio


def client_for(gateway: Gateway) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False)


async def test_health_and_models(gateway: Gateway) -> None:
    async with client_for(gateway) as client:
        assert (await client.get("/health/live")).json() == {"status": "live"}
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        models = (await client.get("/v1/models")).json()
        (model,) = models["data"]
        assert model["id"] == ready.json()["model"]
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model
        assert (await client.get("/v1/models/gpt-5")).status_code == 404


async def test_before_it_is_open_the_server_is_live_and_says_how_far_it_is(
    make_settings: MakeSettings,
) -> None:
    app = build_app(make_settings())  # its lifespan never runs: nothing is opened
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health/live")).status_code == 200
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert re.fullmatch(r"starting, \d+ s", ready.json()["phase"])
        refused = await client.post("/v1/chat/completions", json=question())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert "retry-after" in refused.headers
        assert (await client.get("/")).status_code == 200


def sample(metrics: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    assert found, f"{name} is missing"
    return float(found[1])


async def test_metrics_count_what_happened(gateway: Gateway) -> None:
    streams = [await ask(gateway.url, question()) for _ in range(3)]
    async with client_for(gateway) as client:
        metrics = (await client.get("/metrics")).text
    assert sample(metrics, 'firstword_turns_total{outcome="finished"}') == 3
    assert sample(metrics, "firstword_ttft_seconds_count") == 3
    for phase in PHASES:
        assert sample(metrics, f'firstword_phase_seconds_count{{phase="{phase}"}}') == 3
    cached = sum(stream.timing["cached_tokens"] for stream in streams)
    prompt = sum(stream.timing["prompt_tokens"] for stream in streams)
    assert sample(metrics, 'firstword_prompt_tokens_total{source="cached"}') == cached
    assert sample(metrics, 'firstword_prompt_tokens_total{source="computed"}') == prompt - cached
    assert sample(metrics, "firstword_inter_token_seconds_count") > 3
    assert sample(metrics, "firstword_engine_ready") == 1
    for gauge in ("active_streams", "queue_depth", "engine_running_requests", "engine_restarts_total"):
        assert sample(metrics, f"firstword_{gauge}") == 0


async def test_refused_requests_are_counted_by_code(gateway: Gateway) -> None:
    async with client_for(gateway) as client:
        await client.post("/v1/chat/completions", content=b"{")
        await client.get("/v1/turns/none")
        await client.get("/v1/turns/none")
        metrics = (await client.get("/metrics")).text
    assert sample(metrics, 'firstword_error_responses_total{code="invalid_body"}') == 1
    assert sample(metrics, 'firstword_error_responses_total{code="not_found"}') == 2


async def test_turns_are_listed_newest_first_page_by_page(gateway: Gateway) -> None:
    asked = [(await ask(gateway.url, question(f"Q{n}"))).chunks[0]["firstword"]["turn_id"] for n in range(5)]
    await asyncio.to_thread(gateway.parts.turn_log.flush)
    async with client_for(gateway) as client:
        first = (await client.get("/v1/turns?limit=3")).json()
        rest = (await client.get(f"/v1/turns?limit=3&before={first['data'][-1]['id']}")).json()
        assert (first["has_more"], rest["has_more"]) == (True, False)
        assert [turn["id"] for turn in first["data"] + rest["data"]] == asked[::-1]
        turn = (await client.get(f"/v1/turns/{asked[0]}")).json()
        assert set(turn["phases_ms"]) == set(PHASES)
        assert sum(turn["phases_ms"].values()) == pytest.approx(turn["ttft_ms"])
        assert turn["outcome"] == "finished"
        assert turn["total_ms"] > turn["ttft_ms"]
        assert turn["passages"]
        assert "Q0" not in str(turn)
        assert (await client.get("/v1/turns/none")).status_code == 404
        for limit in ("0", "201", "x", "-1", "²"):
            bad = await client.get("/v1/turns", params={"limit": limit})
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "limit")


async def test_turns_and_documents_survive_a_restart(make_settings: MakeSettings) -> None:
    settings = make_settings()
    async with running(settings) as gateway:
        turn_id = (await ask(gateway.url, question())).chunks[0]["firstword"]["turn_id"]
        documents = gateway.parts.store.documents()
    async with running(settings) as gateway, client_for(gateway) as client:
        assert (await client.get(f"/v1/turns/{turn_id}")).status_code == 200
        assert gateway.parts.store.documents() == documents
        stream = await ask(gateway.url, question("How many days to return an item?"))
        assert stream.chunks[0]["firstword"]["citations"][0]["filename"] == "returns.md"


async def test_what_is_ingested_while_it_runs_is_in_the_next_turn(gateway: Gateway, tmp_path: Path) -> None:
    new = tmp_path / "dragons.md"
    new.write_text("# Dragons\n\nThe dragon Smaug sleeps on gold.\n")
    parts = gateway.parts
    intake = Intake(DirectPreparer(parts.template), make_embedder(parts.settings), parts.store)

    def take_in() -> None:
        ingest([new], intake, chunk_tokens=160, overlap_tokens=24, max_document_bytes=10**6)

    await asyncio.to_thread(take_in)
    stream = await ask(gateway.url, question("Where does the dragon Smaug sleep?"))
    assert stream.chunks[0]["firstword"]["citations"][0]["filename"] == "dragons.md"


async def test_the_page_is_served_with_a_strict_policy(gateway: Gateway) -> None:
    async with client_for(gateway) as client:
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "'unsafe-inline'" not in page.headers["content-security-policy"]
        for asset in re.findall(r"/assets/[\w./-]+", page.text):
            assert (await client.get(asset)).status_code == 200
        assert (await client.get("/assets/../settings.py")).status_code == 404
        assert (await client.get("/assets/%2e%2e/settings.py")).status_code == 404


async def test_other_origins_may_call_only_when_they_are_named(make_settings: MakeSettings) -> None:
    asking = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with running(make_settings()) as gateway, client_for(gateway) as client:
        refused = await client.options("/v1/chat/completions", headers=asking)
        assert "access-control-allow-origin" not in refused.headers
    async with running(make_settings(http__cors_origins=("https://app.example",))) as gateway:
        async with client_for(gateway) as client:
            allowed = await client.options("/v1/chat/completions", headers=asking)
            other = await client.options(
                "/v1/chat/completions", headers=asking | {"origin": "https://evil.example"}
            )
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-origin" not in other.headers

"""OpenAI's files and vector stores, over HTTP: with its own SDK, and with everything that can be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from gateways import Gateway, MakeSettings, running
from retrieval.errors import StoreFull
from stores import FILES, STORES, client_of, create, found, settled, upload

pytestmark = pytest.mark.anyio

RETURNS = "# Returns\n\nAn item can be returned within 45 days with its receipt.\n"
SHIPPING = "# Shipping\n\nA parcel to Norway takes six days and is insured.\n"
GARDEN = "# Garden\n\nTomatoes want sun, water and a stake to climb.\n"
BROKEN = b"%PDF-1.7\n\xff\xfe\x00 nothing that a reader of PDF could follow"
POLL_MS = 20


def sdk(gateway: Gateway, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=gateway.url + "/v1",
        api_key=key,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    )


async def test_the_openai_sdk_takes_a_file_through_its_whole_life(gateway: Gateway) -> None:
    async with sdk(gateway) as client:
        store = await client.vector_stores.create(
            name="Shop", metadata={"team": "a"}, expires_after={"anchor": "last_active_at", "days": 7}
        )
        assert (store.name, store.status, store.metadata) == ("Shop", "completed", {"team": "a"})
        assert store.expires_at == (store.last_active_at or 0) + 7 * 86_400

        attached = await client.vector_stores.files.upload_and_poll(
            vector_store_id=store.id,
            file=("returns.md", RETURNS.encode()),
            attributes={"year": 2024, "kind": "policy", "public": True},
            poll_interval_ms=POLL_MS,
        )
        assert (attached.status, attached.last_error) == ("completed", None)
        assert attached.usage_bytes > 0
        batch = await client.vector_stores.file_batches.upload_and_poll(
            store.id,
            files=[
                ("shipping.md", SHIPPING.encode()),
                ("garden.md", GARDEN.encode()),
                ("broken.pdf", BROKEN),
            ],
            chunking_strategy={
                "type": "static",
                "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10},
            },
            poll_interval_ms=POLL_MS,
        )
        counts = batch.file_counts
        assert (batch.status, counts.completed, counts.failed, counts.total) == ("completed", 2, 1, 3)
        of_batch = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
        failed = [file async for file in of_batch if file.status == "failed"]
        assert failed[0].last_error is not None
        assert failed[0].last_error.code in ("invalid_file", "unsupported_file")
        assert "broken.pdf" in failed[0].last_error.message
        chunking = failed[0].chunking_strategy
        assert chunking is not None
        assert chunking.type == "static"
        assert chunking.static.max_chunk_size_tokens == 100

        page = await client.vector_stores.search(
            store.id, query="item returned within 45 days with its receipt"
        )
        assert page.data[0].filename == "returns.md"
        assert page.data[0].file_id == attached.id
        assert page.data[0].attributes == {"year": 2024, "kind": "policy", "public": True}
        assert "45 days" in page.data[0].content[0].text
        filtered = await client.vector_stores.search(
            store.id,
            query="return",
            filters={
                "type": "and",
                "filters": [
                    {"type": "eq", "key": "kind", "value": "policy"},
                    {"type": "gte", "key": "year", "value": 2024},
                ],
            },
            max_num_results=5,
            ranking_options={"ranker": "auto", "score_threshold": 0.0},
            rewrite_query=True,
        )
        assert {result.filename for result in filtered.data} == {"returns.md"}

        await client.vector_stores.files.update(
            attached.id, vector_store_id=store.id, attributes={"kind": "old"}
        )
        gone = await client.vector_stores.search(
            store.id, query="return", filters={"type": "eq", "key": "kind", "value": "policy"}
        )
        assert gone.data == []
        content = await client.vector_stores.files.content(attached.id, vector_store_id=store.id)
        assert "45 days" in "".join(part.text or "" for part in content.data)
        assert (await client.files.content(attached.id)).content == RETURNS.encode()

        listed = [file.id async for file in client.vector_stores.files.list(store.id, limit=1)]
        assert len(listed) == len(set(listed)) == 4
        assert {file.filename async for file in client.files.list(purpose="assistants", limit=3)} == {
            "returns.md",
            "shipping.md",
            "garden.md",
            "broken.pdf",
        }
        renamed = await client.vector_stores.update(store.id, name="Warehouse", expires_after=None)
        assert (renamed.name, renamed.metadata, renamed.expires_at) == ("Warehouse", {"team": "a"}, None)

        removed = await client.vector_stores.files.delete(attached.id, vector_store_id=store.id)
        assert removed.deleted
        again = await client.vector_stores.search(
            store.id, query="item returned within 45 days with its receipt"
        )
        assert all(result.file_id != attached.id for result in again.data)
        assert (await client.files.retrieve(attached.id)).filename == "returns.md"
        assert (await client.files.delete(listed[0])).deleted
        left = set(listed) - {listed[0], attached.id}
        async for file in client.vector_stores.files.list(
            store.id, limit=1
        ):  # each page is asked for by what is gone
            await client.vector_stores.files.delete(file.id, vector_store_id=store.id)
            left.remove(file.id)
        assert left == set()
        assert (await client.vector_stores.delete(store.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.vector_stores.retrieve(store.id)


async def test_what_comes_back_is_what_is_published(gateway: Gateway) -> None:
    """The client holds every answer to the document; here is what it does not see by itself."""
    async with client_of(gateway) as client:
        nasty = await upload(client, 'Straße "1", 東京; x=y.md', RETURNS)
        described = (await client.get(f"{FILES}/{nasty}")).json()
        assert described["bytes"] == len(RETURNS)
        content = await client.get(f"{FILES}/{nasty}/content")
        assert content.content == RETURNS.encode()
        assert content.headers["content-disposition"].startswith("attachment; filename*=UTF-8''Stra%C3%9Fe")
        assert content.headers["x-content-type-options"] == "nosniff"

        shipping = await upload(client, "shipping.md", SHIPPING)
        store_id = await create(client, name="both", description="two files", file_ids=[nasty, shipping])
        store = f"{STORES}/{store_id}"
        assert (await settled(client, store_id))["completed"] == 2
        assert (await client.get(store)).json()["firstword"] == {"description": "two files"}
        queries = ["An item can be returned within 45 days", "A parcel to Norway"]
        best: dict[str, float] = {}
        for query in queries:
            for result in await found(client, store_id, query):
                chunk_id = result["firstword"]["chunk_id"]
                best[chunk_id] = max(result["score"], best.get(chunk_id, -1.0))
        several = (await client.post(store + "/search", json={"query": queries})).json()
        assert several["search_query"] == queries
        together = {result["firstword"]["chunk_id"]: result["score"] for result in several["data"]}
        assert together == pytest.approx(best, abs=1e-6)
        assert list(together.values()) == sorted(together.values(), reverse=True)
        assert {result["file_id"] for result in several["data"]} == {nasty, shipping}
        assert len(await found(client, store_id, "item", max_num_results=1)) == 1
        assert await found(client, store_id, "item", ranking_options={"score_threshold": 1}) == []

        static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}
        strategy = {"type": "static", "static": static}
        batched = await client.post(
            store + "/file_batches",
            json={
                "files": [
                    {"file_id": nasty, "attributes": {"n": 1}, "chunking_strategy": strategy},
                    {"file_id": shipping, "attributes": {"n": 2}},
                ]
            },
        )
        batch = f"{store}/file_batches/{batched.json()['id']}"
        assert (await settled(client, store_id))["completed"] == 2
        assert (await client.get(batch)).json()["status"] == "completed"
        listed = (await client.get(batch + "/files?order=asc&filter=completed")).json()
        assert [file["attributes"] for file in listed["data"]] == [{"n": 1}, {"n": 2}]
        assert (listed["first_id"], listed["last_id"]) == (nasty, shipping)
        own, common = (file["chunking_strategy"]["static"] for file in listed["data"])
        assert (own == static, common == static) == (True, False)
        assert await found(client, store_id, "item", filters={"type": "gt", "key": "n", "value": 5}) == []
        assert (await client.post(batch + "/cancel")).json()["status"] == "cancelled"
        first = (await client.get(store + "/files?limit=1&order=asc")).json()
        assert first["has_more"] is True
        rest = (await client.get(f"{store}/files?order=asc&after={first['last_id']}")).json()
        assert [file["id"] for file in rest["data"]] == [shipping]
        before = (await client.get(f"{store}/files?order=asc&before={shipping}")).json()
        assert [file["id"] for file in before["data"]] == [nasty]
        stores = (await client.get(STORES)).json()["data"]
        assert {store["id"] for store in stores} == {"default", store_id}
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as plain:
        wrong = await plain.put(FILES)
    assert wrong.status_code == 405
    assert {"GET", "POST"} <= {method.strip() for method in wrong.headers["allow"].split(",")}


def wrong_bodies(file_id: str) -> list[tuple[str, Any, str | None]]:
    """Path within a store, body, the field that is at fault."""
    compare = {"type": "eq", "key": "k", "value": 1}
    chunking = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}}
    return [
        ("", {"names": "x"}, "names"),
        ("", {"name": "x" * 257}, "name"),
        ("", {"metadata": {"k": 1}}, "metadata"),
        ("", {"metadata": {"k" * 65: ""}}, "metadata"),
        ("", {"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ("", {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
        ("", {"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days"),
        ("/files", {}, "file_id"),
        ("/files", {"file_id": "file-unknown"}, "file_id"),
        ("/files", {"file_id": file_id, "attributes": {"k": []}}, "attributes"),
        ("/files", {"file_id": file_id, "attributes": {"k": "v" * 513}}, "attributes"),
        ("/files", {"file_id": file_id, "attributes": {"k": 2**63}}, "attributes"),
        (
            "/files",
            {"file_id": file_id, "chunking_strategy": chunking},
            "chunking_strategy.static.chunk_overlap_tokens",
        ),
        ("/files", {"file_id": file_id, "chunking_strategy": {"type": "semantic"}}, "chunking_strategy.type"),
        ("/file_batches", {}, "file_ids"),
        ("/file_batches", {"file_ids": []}, "file_ids"),
        ("/file_batches", {"file_ids": [file_id], "files": [{"file_id": file_id}]}, "file_ids"),
        ("/file_batches", {"file_ids": [file_id, file_id]}, "file_ids[1]"),
        ("/file_batches", {"file_ids": [file_id, "file-unknown"]}, "file_ids[1]"),
        ("/file_batches", {"files": [{"file_id": file_id}, {"file_id": "file-unknown"}]}, "files[1].file_id"),
        ("/file_batches", {"file_ids": [f"file-{number}" for number in range(4)]}, "file_ids"),
        ("/file_batches", {"files": [{"file_id": file_id, "x": 1}]}, "files[0].x"),
        ("/file_batches", {"files": [{"file_id": file_id}], "attributes": {}}, "attributes"),
        ("/search", {}, "query"),
        ("/search", {"query": " "}, "query"),
        ("/search", {"query": ["x", "\n"]}, "query[1]"),
        ("/search", {"query": "x" * 4_097}, "query"),
        ("/search", {"query": "x", "max_num_results": 51}, "max_num_results"),
        ("/search", {"query": "x", "ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        (
            "/search",
            {"query": "x", "ranking_options": {"score_threshold": 1.1}},
            "ranking_options.score_threshold",
        ),
        ("/search", {"query": "x", "filters": {}}, "filters.type"),
        ("/search", {"query": "x", "filters": compare | {"type": "like"}}, "filters.type"),
        (
            "/search",
            {"query": "x", "filters": {"type": "or", "filters": [compare, {}]}},
            "filters.filters[1].type",
        ),
        ("/search", {"query": "x", "filters": compare | {"type": "in"}}, "filters.value"),
        ("/search", {"query": "x", "hybrid": True}, "hybrid"),
    ]


async def test_a_refusal_names_the_field_and_changes_nothing(make_settings: MakeSettings) -> None:
    async with (
        running(make_settings(files__max_files_per_batch=3, retrieval__max_document_bytes=4_000)) as gateway,
        client_of(gateway) as client,
    ):
        file_id = await upload(client, "returns.md", RETURNS)
        store_id = await create(client, name="kept")
        for path, body, param in wrong_bodies(file_id):
            response = await client.post(f"{STORES}/{store_id}{path}", json=body)
            error = response.json()["error"]
            assert response.status_code == (404 if "file-unknown" in str(body) else 400), (path, body, error)
            assert error["param"] == param, (path, body, error)
            assert error["message"], body
        huge = await client.post(
            f"{STORES}/{store_id}/search", content=b'{"query": "x", "max_num_results": 1e400}'
        )
        assert huge.json()["error"]["param"] == "max_num_results"
        for query in ("limit=0", "limit=101", "order=up", "filter=done", "limits=5", "limit=1&limit=2"):
            response = await client.get(f"{STORES}/{store_id}/files?{query}")
            assert response.status_code == 400, query
            assert response.json()["error"]["param"] == query.partition("=")[0]
        response = await client.get(f"{STORES}?after=vs_unknown")
        assert (response.status_code, response.json()["error"]["param"]) == (404, "after")
        for path in (
            f"{STORES}/x",
            f"{FILES}/x",
            f"{FILES}/x/content",
            f"{STORES}/{store_id}/file_batches/x",
        ):
            assert (await client.get(path)).status_code == 404
        unmade = await client.post(STORES, json={"file_ids": ["file-unknown"]})
        assert (unmade.status_code, unmade.json()["error"]["param"]) == (404, "file_ids[0]")
        kept = (await client.get(f"{STORES}/{store_id}")).json()
        assert (kept["name"], kept["file_counts"]["total"]) == ("kept", 0)
        assert len((await client.get(STORES)).json()["data"]) == 2

        for form, param, status in [
            ({"data": {"purpose": "assistants"}, "files": {"other": ("a.txt", b"x")}}, "other", 400),
            ({"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"")}}, "file", 400),
            ({"data": {"purpose": "batch"}, "files": {"file": ("a.txt", b"x")}}, "purpose", 400),
            ({"data": {}, "files": {"file": ("a.txt", b"x")}}, "purpose", 400),
            ({"data": {"purpose": "assistants", "x": "1"}, "files": {"file": ("a.txt", b"x")}}, "x", 400),
            (
                {
                    "data": {"purpose": "assistants", "expires_after[seconds]": "3600"},
                    "files": {"file": ("a.txt", b"x")},
                },
                "expires_after",
                400,
            ),
            ({"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"x" * 4_001)}}, "file", 413),
            ({"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"x" * 400_000)}}, "file", 413),
        ]:
            response = await client.post(FILES, **form)
            assert (response.status_code, response.json()["error"]["param"]) == (status, param), response.text
        assert (await client.post(FILES, json={})).status_code == 400
        assert len((await client.get(FILES)).json()["data"]) == 1


async def test_a_tenant_cannot_tell_anothers_from_what_is_not_there(make_settings: MakeSettings) -> None:
    keys = {"acme": "k-acme", "umbrella": "k-umbrella"}
    async with (
        running(make_settings(auth__api_keys=keys, files__default_store_writers=("acme",))) as gateway,
        client_of(gateway, "k-acme") as acme,
        client_of(gateway, "k-umbrella") as umbrella,
        client_of(gateway) as nobody,
    ):
        file_id = await upload(acme, "returns.md", RETURNS)
        store_id = await create(acme, file_ids=[file_id])
        batch = await acme.post(f"{STORES}/{store_id}/file_batches", json={"file_ids": [file_id]})
        batch_id = batch.json()["id"]
        await settled(acme, store_id)
        own_store = await create(umbrella)

        async def seen(file: str, store: str, batch: str) -> list[tuple[int, str]]:
            at = f"{STORES}/{store}"
            calls: list[tuple[str, str, Any]] = [
                ("GET", f"{FILES}/{file}", None),
                ("GET", f"{FILES}/{file}/content", None),
                ("DELETE", f"{FILES}/{file}", None),
                ("GET", f"{FILES}?after={file}", None),
                ("POST", STORES, {"file_ids": [file]}),
                ("GET", f"{STORES}?after={store}", None),
                ("GET", at, None),
                ("POST", at, {"name": "mine"}),
                ("DELETE", at, None),
                ("POST", at + "/search", {"query": "return an item"}),
                ("GET", at + "/files", None),
                ("POST", at + "/files", {"file_id": file}),
                ("POST", f"{STORES}/{own_store}/files", {"file_id": file}),
                ("POST", f"{STORES}/{own_store}/file_batches", {"file_ids": [file]}),
                ("GET", f"{at}/files/{file}", None),
                ("POST", f"{at}/files/{file}", {"attributes": {}}),
                ("DELETE", f"{at}/files/{file}", None),
                ("GET", f"{at}/files/{file}/content", None),
                ("POST", at + "/file_batches", {"file_ids": [file]}),
                ("GET", f"{at}/file_batches/{batch}", None),
                ("GET", f"{STORES}/{own_store}/file_batches/{batch}", None),
                ("POST", f"{at}/file_batches/{batch}/cancel", None),
                ("GET", f"{at}/file_batches/{batch}/files", None),
            ]
            answers = [await umbrella.request(method, path, json=body) for method, path, body in calls]
            names = {file: "FILE", store: "STORE", batch: "BATCH"}
            texts = []
            for answer in answers:
                text = answer.text
                for name, neutral in names.items():
                    text = text.replace(name, neutral)
                texts.append((answer.status_code, text))
            return texts

        foreign = await seen(file_id, store_id, batch_id)
        unknown = await seen("file-" + "0" * 32, "vs_" + "0" * 32, "vsfb_" + "0" * 32)
        assert foreign == unknown
        assert {status for status, _ in foreign} == {404}
        assert (await umbrella.get(FILES)).json()["data"] == []
        assert (await nobody.get(FILES)).status_code == 401
        assert {result["file_id"] for result in await found(acme, store_id, "return an item")} == {file_id}

        # `default` is everybody's to search, the writers' to add to, and nobody's to change.
        mine = await upload(umbrella, "mine.md", GARDEN)
        for client, body in ((umbrella, {"file_id": mine}), (acme, {"file_id": file_id})):
            response = await client.post(f"{STORES}/default/files", json=body)
            assert response.status_code == (200 if client is acme else 403)
            assert (await client.post(f"{STORES}/default", json={"name": "x"})).status_code == 403
            assert (await client.delete(f"{STORES}/default")).status_code == 403
        await settled(acme, "default")
        shared = await found(
            umbrella, "default", "An item can be returned with its receipt", max_num_results=50
        )
        assert file_id in [result["file_id"] for result in shared]
        assert (await umbrella.delete(f"{STORES}/default/files/{file_id}")).status_code == 403
        assert (await acme.delete(f"{STORES}/default/files/{file_id}")).status_code == 200


async def test_quotas_and_a_full_disk_are_told(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(
        files__max_files_per_tenant=2, files__max_bytes_per_tenant=2_000, files__max_stores_per_tenant=1
    )
    form: dict[str, Any] = {"data": {"purpose": "user_data"}}
    async with running(settings) as gateway, client_of(gateway) as client:
        first = await upload(client, "a.txt", "x" * 1_500)
        heavy = await client.post(FILES, files={"file": ("b.txt", b"x" * 501)}, **form)
        assert (heavy.status_code, heavy.json()["error"]["code"]) == (400, "quota_exceeded")
        await upload(client, "b.txt", "x" * 500)
        await client.delete(f"{FILES}/{first}")
        await upload(client, "c.txt", "x")
        many = await client.post(FILES, files={"file": ("d.txt", b"x")}, **form)
        assert (many.status_code, many.json()["error"]["code"]) == (400, "quota_exceeded")
        store_id = await create(client)
        second = await client.post(STORES, json={})
        assert (second.status_code, second.json()["error"]["code"]) == (400, "quota_exceeded")
        assert (await client.delete(f"{STORES}/{store_id}")).status_code == 200

        def full(*_: Any, **__: Any) -> Any:
            raise StoreFull("store.sqlite: no room on the disk; make room")

        monkeypatch.setattr(type(gateway.parts.files), "create_store", full)
        response = await client.post(STORES, json={})
        assert (response.status_code, response.json()["error"]["code"]) == (507, "storage_full")


async def test_an_expired_store_is_told_and_not_searched(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(gateway) as client:
        store_id = await create(client, expires_after={"anchor": "last_active_at", "days": 1})
        later = time.time() + 2 * 86_400
        for module in ("storage", "store_objects"):
            monkeypatch.setattr(f"server.api.{module}.time", SimpleNamespace(time=lambda: later))
        assert (await client.get(f"{STORES}/{store_id}")).json()["status"] == "expired"
        for path, body in (("search", {"query": "x"}), ("files", {"file_id": "x"})):
            response = await client.post(f"{STORES}/{store_id}/{path}", json=body)
            assert (response.status_code, response.json()["error"]["param"]) == (404, "vector_store_id")


async def test_a_page_of_another_site_cannot_write(make_settings: MakeSettings) -> None:
    """Without keys: a browser would send the form for it."""
    form: dict[str, Any] = {"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "assistants"}}
    async with (
        running(make_settings(http__cors_origins=("https://friend.example",))) as gateway,
        client_of(gateway) as client,
    ):
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("https://friend.example", 200),
            (gateway.url, 200),
        ):
            response = await client.post(FILES, headers={"origin": origin}, **form)
            assert response.status_code == status, origin
            assert (await client.get(FILES, headers={"origin": origin})).status_code == 200


async def test_whoever_breaks_off_leaves_nothing_and_gives_the_place_back(gateway: Gateway) -> None:
    await break_uploads_off(gateway)
    await leave_downloads_unread(gateway)


async def break_uploads_off(gateway: Gateway) -> None:
    boundary = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    host, port = gateway.url.removeprefix("http://").split(":")
    before = {path.name for path in gateway.parts.settings.data_path.iterdir()}
    for _ in range(10):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
            b"content-length: 3000000\r\n\r\n" + boundary + b"x" * 2_000_000
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    async with client_of(gateway) as client, asyncio.timeout(10):
        while True:
            response = await client.post(
                FILES, files={"file": ("a.txt", b"x")}, data={"purpose": "assistants"}
            )
            if response.status_code == 200:
                break
            assert response.json()["error"]["code"] == "busy"
            await asyncio.sleep(0.02)
        assert len((await client.get(FILES)).json()["data"]) == 1
    assert {path.name for path in gateway.parts.settings.data_path.iterdir()} <= before | {
        "store.sqlite-wal",
        "store.sqlite-shm",
    }


async def leave_downloads_unread(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        file_id = await upload(client, "large.txt", b"x" * 8_000_000)
        async with contextlib.AsyncExitStack() as held:
            slow = await held.enter_async_context(httpx.AsyncClient(base_url=gateway.url, trust_env=False))
            path = f"{FILES}/{file_id}/content"
            for _ in range(8):
                response = await held.enter_async_context(slow.stream("GET", path))
                assert response.status_code == 200
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
        async with asyncio.timeout(10):
            while (again := await client.get(path)).status_code == 429:
                await asyncio.sleep(0.02)
        assert len(again.content) == 8_000_000

"""What every `FileStore` keeps to, together with the `DocumentStore` that holds its documents."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import EmbedderMismatch, NotHere
from retrieval.file_types import Attachment, FileStore, Page, ToAttach, Usage
from retrieval.store.sqlite_store import SqliteStore, document_id_for
from retrieval.types import DEFAULT_STORE, DEPLOYMENT, Chunk, Document, DocumentStore, Vectors

DIM = 4
EVERYTHING = Page(limit=1000)


@dataclass(frozen=True)
class Both:
    files: FileStore
    documents: DocumentStore


@pytest.fixture(params=["sqlite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    store = SqliteStore(tmp_path / "store.db")
    store.claim_embedder("model", DIM)
    yield Both(store.files, store)
    store.close()


@pytest.fixture
def files(both: Both) -> FileStore:
    return both.files


def parts(attachment: Attachment, *texts: str) -> tuple[Document, list[Chunk], Vectors]:
    document = Document(
        document_id=document_id_for(attachment.file_id, attachment.store_id),
        source=attachment.file_id,
        filename=attachment.filename,
        title=attachment.filename,
        content_sha256="",
        size_bytes=1,
        n_chunks=len(texts),
        ingested_at=0.0,
        store_id=attachment.store_id,
        file_id=attachment.file_id,
    )
    chunks = [Chunk(ordinal, (), text, 1) for ordinal, text in enumerate(texts)]
    return document, chunks, np.full((len(texts), DIM), 0.5, dtype=np.float32)


def attached(files: FileStore, tenant: str, store_id: str, data: bytes = b"x") -> Attachment:
    file = files.add_file(tenant, "a.md", "assistants", data)
    return files.attach(tenant, store_id, [ToAttach(file.file_id)])[0][0]


def ids(found: tuple[list[object], bool]) -> list[str]:
    names = ("file_id", "store_id")
    return [next(getattr(one, name) for name in names if hasattr(one, name)) for one in found[0]]


def test_a_file_is_kept_as_it_came(files: FileStore):
    file = files.add_file("t", "ä.md", "assistants", b"\0\xff")
    assert files.file("t", file.file_id) == file
    assert files.file_data("t", file.file_id) == b"\0\xff"
    assert (file.tenant, file.filename, file.purpose, file.size_bytes) == ("t", "ä.md", "assistants", 2)
    assert file.file_id.startswith("file-")
    assert len(file.sha256) == 64


def test_equal_contents_are_apart_to_their_owners(files: FileStore):
    mine, theirs = files.add_file("t", "a", "p", b"same"), files.add_file("u", "b", "p", b"same")
    files.delete_file("t", mine.file_id)
    assert files.file_data("u", theirs.file_id) == b"same"
    with pytest.raises(NotHere):
        files.file_data("t", mine.file_id)
    files.delete_file("u", theirs.file_id)
    again = files.add_file("t", "a", "p", b"same")
    assert files.file_data("t", again.file_id) == b"same"


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_join_to_the_whole_list(files: FileStore, newest_first: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # equal timestamps
    made = [files.add_file("t", str(n), "even" if n % 2 == 0 else "odd", b"").file_id for n in range(7)]
    files.add_file("u", "other", "even", b"")
    order = made[::-1] if newest_first else made
    whole = Page(limit=7, newest_first=newest_first)
    assert files.files("t", whole) == ([files.file("t", id_) for id_ in order], False)
    forward: list[str] = []
    more = True
    while more:
        after = forward[-1] if forward else ""
        found, more = files.files("t", Page(2, newest_first, after=after))
        forward += [file.file_id for file in found]
    assert forward == order
    found, more = files.files("t", Page(2, newest_first, before=order[4]))
    assert ([file.file_id for file in found], more) == (order[2:4], True)
    found, more = files.files("t", Page(2, newest_first, before=order[1]))
    assert ([file.file_id for file in found], more) == (order[:1], False)
    found, more = files.files("t", Page(9, newest_first, after=order[1], before=order[4]))
    assert ([file.file_id for file in found], more) == (order[2:4], False)
    assert ids(files.files("t", whole, purpose="odd")) == [id_ for id_ in order if made.index(id_) % 2]
    for page in (Page(after="file-gone"), Page(before="file-gone")):
        with pytest.raises(NotHere):
            files.files("t", page)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("kind", ["files", "stores", "detach", "attached files"])
def test_a_list_is_read_to_its_end_by_who_deletes_meanwhile(files: FileStore, kind: str, newest_first: bool):
    home = files.create_store("t", "home").store_id
    made = [files.add_file("t", str(n), "p", b"").file_id for n in range(5)]
    files.attach("t", home, [ToAttach(file_id) for file_id in made])
    stores = [home, *(files.create_store("t", str(n)).store_id for n in range(4))]

    def listed(after: str) -> tuple[list[str], bool]:
        page = Page(2, newest_first, after)
        if kind == "files":
            found, more = files.files("t", page)
            return [one.file_id for one in found], more
        if kind == "stores":
            kept, more = files.stores("t", page)
            return [one.store_id for one in kept], more
        attachments, more = files.attachments("t", home, page)
        return [one.file_id for one in attachments], more

    seen: list[str] = []
    more = True
    while more:
        found, more = listed(seen[-1] if seen else "")
        seen += found
        for id_ in found:
            if kind == "detach":
                files.detach("t", home, id_)
            elif kind != "stores":
                files.delete_file("t", id_)
            elif id_ != DEFAULT_STORE:
                files.delete_store("t", id_)
    oldest_first = [DEFAULT_STORE, *stores] if kind == "stores" else made
    assert seen == (oldest_first[::-1] if newest_first else oldest_first)
    assert listed("")[0] == ([DEFAULT_STORE] if kind == "stores" else [])
    if kind in ("files", "stores"):  # what it deleted is a place in the owner's list only
        with pytest.raises(NotHere):
            getattr(files, kind)("u", Page(after=seen[0 if newest_first else -1]))


def test_usage_is_what_the_tenant_keeps(files: FileStore):
    assert files.usage("t") == files.usage(DEPLOYMENT) == Usage(0, 0, 0)
    heavy, _ = files.add_file("t", "a", "p", b"123"), files.add_file("t", "b", "p", b"123")
    store = files.create_store("t", "s")
    assert (files.usage("t"), files.usage("u")) == (Usage(2, 6, 1), Usage(0, 0, 0))
    files.delete_file("t", heavy.file_id)
    files.delete_store("t", store.store_id)
    assert files.usage("t") == Usage(1, 3, 0)


def test_vectors_are_known_to_those_who_may_search_them(both: Both):
    shared, mine, other, theirs = (
        DEFAULT_STORE,
        *(both.files.create_store(tenant, "s").store_id for tenant in ("t", "t", "u")),
    )
    for tenant, store_id in ((DEPLOYMENT, shared), ("t", mine)):
        both.documents.put(*parts(attached(both.files, tenant, store_id), f"in {store_id}"))
    everyones, own = (hashlib.sha256(f"a.md\nin {store_id}".encode()).digest() for store_id in (shared, mine))
    for store_id, known in (
        (mine, {everyones, own}),
        (other, {everyones, own}),
        (theirs, {everyones}),
        (shared, {everyones}),
        ("vs_gone", {everyones}),
    ):
        assert both.documents.known_vectors([everyones, own], store_id).keys() == known, store_id


def test_default_is_there_for_all_and_only_the_deployments(files: FileStore):
    assert files.store("t", DEFAULT_STORE).tenant == DEPLOYMENT
    mine = files.create_store("t", "mine")
    assert ids(files.stores("t", EVERYTHING)) == [mine.store_id, DEFAULT_STORE]
    assert ids(files.stores("u", EVERYTHING)) == [DEFAULT_STORE]
    for tenant in ("t", DEPLOYMENT):
        with pytest.raises(NotHere):
            files.delete_store(tenant, DEFAULT_STORE)
    with pytest.raises(NotHere):
        files.modify_store("t", DEFAULT_STORE, name="taken")
    assert files.modify_store(DEPLOYMENT, DEFAULT_STORE, name="ours").name == "ours"


def test_a_store_is_made_and_modified(files: FileStore):
    made = files.create_store("t", "name", description="what", metadata={"ä": "b"}, expires_after_days=2)
    assert made.store_id.startswith("vs_")
    assert files.store("t", made.store_id) == made
    assert (made.metadata, made.description, made.expires_after_days) == ({"ä": "b"}, "what", 2)
    assert (made.usage_bytes, set(made.n_by_status.values())) == (0, {0})
    changed = files.modify_store("t", made.store_id, name="other")
    assert (changed.name, changed.metadata, changed.expires_after_days) == ("other", {"ä": "b"}, 2)
    changed = files.modify_store("t", made.store_id, metadata={}, expires_after_days=5)
    assert (changed.name, changed.metadata, changed.expires_after_days) == ("other", {}, 5)
    assert files.modify_store("t", made.store_id, expires=False).expires_after_days is None


def test_what_another_tenant_has_is_as_good_as_absent(both: Both):
    files = both.files
    store = files.create_store("t", "mine")
    file = files.add_file("t", "a", "p", b"x")
    (attachment,), batch_id = files.attach("t", store.store_id, [ToAttach(file.file_id)], batch=True)
    theirs = files.add_file("u", "b", "p", b"y").file_id
    page = Page()
    for call in (
        lambda: files.file("u", file.file_id),
        lambda: files.file_data("u", file.file_id),
        lambda: files.delete_file("u", file.file_id),
        lambda: files.files("u", Page(after=file.file_id)),
        lambda: files.store("u", store.store_id),
        lambda: files.stores("u", Page(after=store.store_id)),
        lambda: files.modify_store("u", store.store_id, name="x"),
        lambda: files.delete_store("u", store.store_id),
        lambda: files.attach("u", store.store_id, [ToAttach(theirs)]),
        lambda: files.attach("u", DEFAULT_STORE, [ToAttach(file.file_id)]),
        lambda: files.attachment("u", store.store_id, file.file_id),
        lambda: files.attachments("u", store.store_id, page),
        lambda: files.modify_attachment("u", store.store_id, file.file_id, {}),
        lambda: files.detach("u", store.store_id, file.file_id),
        lambda: files.batch("u", store.store_id, batch_id),
        lambda: files.cancel_batch("u", store.store_id, batch_id),
        lambda: files.batch("u", DEFAULT_STORE, batch_id),
    ):
        with pytest.raises(NotHere):
            call()
    assert files.attachment("t", store.store_id, file.file_id) == attachment
    assert files.file_data("t", file.file_id) == b"x"


def test_in_default_each_takes_away_what_is_theirs(files: FileStore):
    attachment = attached(files, "t", DEFAULT_STORE)
    assert attachment.tenant == "t"
    assert files.attachment("u", DEFAULT_STORE, attachment.file_id) == attachment
    for call in (
        lambda: files.detach("u", DEFAULT_STORE, attachment.file_id),
        lambda: files.modify_attachment("u", DEFAULT_STORE, attachment.file_id, {}),
    ):
        with pytest.raises(NotHere):
            call()
    files.detach("t", DEFAULT_STORE, attachment.file_id)
    other = attached(files, "u", DEFAULT_STORE)
    files.detach(DEPLOYMENT, DEFAULT_STORE, other.file_id)
    assert files.pending(9) == []


def test_attaching_is_all_or_nothing(files: FileStore):
    file_ids = [files.add_file("t", str(n), "p", b"").file_id for n in range(2)]
    wanted = [ToAttach(file_ids[0], {"n": 1.0}, 100), ToAttach(file_ids[1], None, 200, 20)]
    with pytest.raises(NotHere, match="file-gone"):
        files.attach("t", DEFAULT_STORE, [*wanted, ToAttach("file-gone")], batch=True)
    with pytest.raises(NotHere, match="vs_gone"):
        files.attach("t", "vs_gone", wanted)
    assert files.pending(9) == []
    attachments, batch_id = files.attach("t", DEFAULT_STORE, [*wanted, ToAttach(file_ids[0], {"n": 2.0})])
    assert ([one.file_id for one in attachments], batch_id) == (file_ids, "")
    assert [(one.attributes, one.chunk_tokens, one.overlap_tokens) for one in attachments] == [
        ({"n": 1.0}, 100, None),
        ({}, 200, 20),
    ]
    assert attachments == [files.attachment("t", DEFAULT_STORE, file_id) for file_id in file_ids]


def test_pending_is_oldest_first_and_of_all_tenants(files: FileStore):
    first = attached(files, "t", DEFAULT_STORE)
    second = attached(files, "u", DEFAULT_STORE)
    assert files.pending(9) == [first, second]
    assert files.pending(1) == [first]
    again = files.attach("t", DEFAULT_STORE, [ToAttach(first.file_id)])[0][0]
    assert files.pending(9) == [second, again]


def test_finish_stores_and_completes_as_one(both: Both):
    files, documents = both.files, both.documents
    store = files.create_store("t", "s")
    file = files.add_file("t", "a.md", "p", b"x")
    (attachment,), _ = files.attach("t", store.store_id, [ToAttach(file.file_id, {"n": 1.0}, 100, 20)])
    assert (attachment.chunk_tokens, attachment.overlap_tokens, attachment.filename) == (100, 20, "a.md")
    assert files.store("t", store.store_id).n_by_status["in_progress"] == 1
    files.modify_attachment("t", store.store_id, file.file_id, {"n": 2.0})  # while it is being ingested
    assert files.finish(attachment, *parts(attachment, "one", "two"))
    done = files.attachment("t", store.store_id, file.file_id)
    document = documents.document(done.document_id)
    assert document is not None
    assert (done.status, done.n_chunks, document.attributes, document.store_id) == (
        "completed",
        2,
        {"n": 2.0},
        store.store_id,
    )
    held = files.store("t", store.store_id)
    assert held.usage_bytes == done.usage_bytes == len("onetwo") + 2 * DIM * 4
    assert (held.n_by_status["completed"], held.n_by_status["in_progress"]) == (1, 0)
    assert files.finish(attachment, *parts(attachment, "three")) is False
    assert [chunk.text for chunk in documents.chunks(done.document_id)] == ["one", "two"]
    changed = files.modify_attachment("t", store.store_id, file.file_id, {"ä": True})
    document = documents.document(done.document_id)
    assert document is not None
    assert changed.attributes == document.attributes == {"ä": True}


def test_finish_refuses_what_does_not_belong_together(both: Both):
    one, other = attached(both.files, "t", DEFAULT_STORE), attached(both.files, "t", DEFAULT_STORE)
    with pytest.raises(ValueError, match="expected"):
        both.files.finish(one, *parts(other, "text"))
    document, chunks, vectors = parts(one, "text")
    with pytest.raises(ValueError, match="expected"):
        both.files.finish(one, document, chunks, vectors[:, :2])
    with pytest.raises(ValueError, match="expected"):
        both.files.finish(one, document, [], vectors)
    assert both.documents.documents() == []
    assert both.files.pending(9) == [one, other]


def test_a_worker_that_comes_late_changes_nothing(both: Both):
    files, documents = both.files, both.documents

    def detached(one: Attachment) -> None:
        files.detach("t", one.store_id, one.file_id)

    def attached_anew(one: Attachment) -> None:
        files.attach("t", one.store_id, [ToAttach(one.file_id)])

    def detached_and_attached_anew(one: Attachment) -> None:
        detached(one)
        attached_anew(one)

    def file_deleted(one: Attachment) -> None:
        files.delete_file("t", one.file_id)

    def store_deleted(one: Attachment) -> None:
        files.delete_store("t", one.store_id)

    def cancelled(one: Attachment) -> None:
        files.cancel_batch("t", one.store_id, one.batch_id)

    def failed(one: Attachment) -> None:
        assert files.settle(one, error="no")

    for happens in (
        detached,
        attached_anew,
        detached_and_attached_anew,
        file_deleted,
        store_deleted,
        cancelled,
        failed,
    ):
        store = files.create_store("t", happens.__name__)
        file = files.add_file("t", "a", "p", b"x")
        (attachment,), _ = files.attach("t", store.store_id, [ToAttach(file.file_id)], batch=True)
        happens(attachment)
        version = documents.version()
        for settled in (
            files.finish(attachment, *parts(attachment, "late")),
            files.settle(attachment, document_id="doc", n_chunks=1),
            files.settle(attachment, error_code="server_error", error="late"),
        ):
            assert settled is False, happens.__name__
        assert documents.documents(store.store_id) == []
        assert documents.version() == version


def test_settle_completes_or_fails(files: FileStore):
    one = attached(files, "t", DEFAULT_STORE)
    assert files.settle(one, document_id="doc_1", usage_bytes=7, n_chunks=2)
    done = files.attachment("t", DEFAULT_STORE, one.file_id)
    assert (done.status, done.document_id, done.usage_bytes, done.n_chunks) == ("completed", "doc_1", 7, 2)
    other = attached(files, "t", DEFAULT_STORE)
    assert files.settle(other, error_code="invalid_file", error="encrypted")
    failed = files.attachment("t", DEFAULT_STORE, other.file_id)
    assert (failed.status, failed.error_code, failed.error) == ("failed", "invalid_file", "encrypted")
    assert files.pending(9) == []


def test_attaching_again_keeps_the_document_until_the_new_one_is_there(both: Both):
    files, documents = both.files, both.documents
    first = attached(files, "t", DEFAULT_STORE)
    files.modify_attachment("t", DEFAULT_STORE, first.file_id, {"n": 1.0})
    assert files.finish(first, *parts(first, "old"))
    (again,), _ = files.attach("t", DEFAULT_STORE, [ToAttach(first.file_id, chunk_tokens=64)])
    assert (again.status, again.attributes, again.chunk_tokens) == ("in_progress", {"n": 1.0}, 64)
    assert again.created_at > first.created_at
    assert files.settle(again, error="no luck")
    failed = files.attachment("t", DEFAULT_STORE, first.file_id)
    assert [chunk.text for chunk in documents.chunks(failed.document_id)] == ["old"]
    (third,), _ = files.attach("t", DEFAULT_STORE, [ToAttach(first.file_id, attributes={})])
    assert (third.attributes, third.error, third.error_code) == ({}, "", "")
    assert files.finish(third, *parts(third, "new"))
    assert [chunk.text for chunk in documents.chunks(failed.document_id)] == ["new"]
    assert len(documents.documents()) == 1


@pytest.mark.parametrize("how", ["detach", "delete_file", "delete_store", "expire"])
def test_documents_go_with_what_they_came_from(both: Both, how: str):
    files, documents = both.files, both.documents
    store = files.create_store("t", "s", expires_after_days=1)
    one, other = attached(files, "t", store.store_id), attached(files, "t", store.store_id)
    (elsewhere,), _ = files.attach("t", DEFAULT_STORE, [ToAttach(one.file_id)])
    for attachment in (one, other, elsewhere):
        assert files.finish(attachment, *parts(attachment, "text"))
    with documents.snapshot() as snapshot:
        (rows,) = snapshot.rows(9)
    since = documents.version()
    gone = [one]
    match how:
        case "detach":
            files.detach("t", store.store_id, one.file_id)
        case "delete_file":
            files.delete_file("t", one.file_id)
            gone = [one, elsewhere]
        case "delete_store":
            files.delete_store("t", store.store_id)
            gone = [one, other]
        case _:
            assert files.delete_expired(store.last_active_at + 86_000) == []
            assert files.delete_expired(store.last_active_at + 86_500) == [store.store_id]
            gone = [one, other]
    left = [attachment for attachment in (one, other, elsewhere) if attachment not in gone]
    assert {(document.store_id, document.file_id) for document in documents.documents()} == {
        (attachment.store_id, attachment.file_id) for attachment in left
    }
    for attachment in gone:
        with pytest.raises(NotHere):
            files.attachment("t", attachment.store_id, attachment.file_id)
    changes = documents.changes(since)
    assert changes is not None
    places = [(one, 0), (other, 1), (elsewhere, 2)]
    assert changes.gone_keys == tuple(rows.keys[at] for attachment, at in places if attachment in gone)
    assert len(changes.gone_documents) == len(gone)
    if how != "delete_file":
        assert files.file_data("t", one.file_id) == b"x"


def test_deleting_a_document_detaches_its_file(both: Both):
    one = attached(both.files, "t", DEFAULT_STORE)
    assert both.files.finish(one, *parts(one, "text"))
    document_id = both.files.attachment("t", DEFAULT_STORE, one.file_id).document_id
    assert both.documents.modify(document_id, {"n": 1.0})
    assert both.files.attachment("t", DEFAULT_STORE, one.file_id).attributes == {"n": 1.0}
    assert both.documents.delete(document_id)
    with pytest.raises(NotHere):
        both.files.attachment("t", DEFAULT_STORE, one.file_id)


def test_a_batch_counts_and_is_cancelled(both: Both):
    files = both.files
    file_ids = [files.add_file("t", str(n), "p", b"").file_id for n in range(4)]
    attachments, batch_id = files.attach(
        "t", DEFAULT_STORE, [ToAttach(file_id) for file_id in file_ids], batch=True
    )
    assert batch_id.startswith("vsfb_")
    assert {one.batch_id for one in attachments} == {batch_id}
    assert files.finish(attachments[0], *parts(attachments[0], "text"))
    assert files.settle(attachments[1], error="no")
    assert files.batch("t", DEFAULT_STORE, batch_id).n_by_status == {
        "in_progress": 2,
        "completed": 1,
        "failed": 1,
        "cancelled": 0,
    }
    found, more = files.attachments(
        "t", DEFAULT_STORE, Page(limit=1, newest_first=False), status="in_progress", batch_id=batch_id
    )
    assert (found, more) == ([attachments[2]], True)
    batch = files.cancel_batch("t", DEFAULT_STORE, batch_id)
    assert (batch.cancelled, batch.n_by_status["cancelled"], batch.n_by_status["in_progress"]) == (True, 2, 0)
    assert files.pending(9) == []
    # The entry that a page ended with is still a place to go on from.
    rest, _ = files.attachments(
        "t", DEFAULT_STORE, Page(newest_first=False, after=found[0].file_id), batch_id=batch_id
    )
    assert [one.file_id for one in rest] == file_ids[3:]
    with pytest.raises(NotHere):
        files.attachments("t", DEFAULT_STORE, Page(), batch_id="vsfb_gone")


def test_a_store_is_touched_at_most_once_a_minute(files: FileStore, monkeypatch: pytest.MonkeyPatch):
    store = files.create_store("t", "s")
    start = store.last_active_at
    for later, written in ((59.0, start), (61.0, start + 61.0), (100.0, start + 61.0)):
        monkeypatch.setattr(time, "time", lambda later=later: start + later)
        files.touch_store(store.store_id)
        assert files.store("t", store.store_id).last_active_at == written
    files.touch_store("vs_gone")


def test_of_an_attachment_many_workers_finish_one_does(both: Both):
    one = attached(both.files, "t", DEFAULT_STORE)
    done: list[bool] = []
    workers = [
        threading.Thread(target=lambda n=n: done.append(both.files.finish(one, *parts(one, f"text {n}"))))
        for n in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(done) == [False] * 5 + [True]


def test_vectors_of_another_model_do_not_finish(both: Both):
    one = attached(both.files, "t", DEFAULT_STORE)
    assert isinstance(both.documents, SqliteStore)
    other = SqliteStore(both.documents.connections.path)
    other.claim_embedder("other", DIM)  # the store has no documents yet
    with pytest.raises(EmbedderMismatch):
        both.files.finish(one, *parts(one, "text"))
    other.close()
    assert both.files.pending(1) == [replace(one)]

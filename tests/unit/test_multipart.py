"""Forms with a file: read the same however they are cut into pieces, and bounded before they take memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from server.api.multipart import (
    AROUND_BYTES,
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    Form,
    clean_filename,
    receive_upload,
)
from server.errors import FirstwordError, InvalidBody, InvalidParameter, TooLarge

BOUNDARY = b"the-boundary"
MOST = 200_000


def part(name: str, value: bytes, filename: str | None = None, headers: bytes = b"") -> bytes:
    named = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    return b"--%s\r\ncontent-disposition: %s\r\n%s\r\n%s\r\n" % (BOUNDARY, named.encode(), headers, value)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--%s--\r\n" % BOUNDARY


def read(body: bytes, cuts: Sequence[int] = (), most: int = MOST) -> Form:
    """Fed in pieces that end at these places."""
    made = Form(BOUNDARY, most)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        made.feed(body[start:end])
    made.check_whole()
    return made


def refusal(body: bytes, most: int = MOST) -> FirstwordError:
    with pytest.raises(FirstwordError) as caught:
        read(body, most=most)
    return caught.value


PURPOSE = part("purpose", b"assistants")


@given(
    data=st.one_of(
        st.binary(min_size=1, max_size=300),
        st.lists(
            st.sampled_from([b"\r", b"\n", b"--", BOUNDARY, b"\r\n--" + BOUNDARY[:-1], b"\r\n--the-", b"x"]),
            min_size=1,
            max_size=20,
        ).map(b"".join),
    ),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_file_is_the_same_to_the_byte_however_it_comes_in_pieces(data: bytes, cuts: list[int]) -> None:
    if b"\r\n--" + BOUNDARY in b"\r\n" + data:
        return  # no client picks a boundary that the file holds
    found = read(form(PURPOSE, part("file", data, "Straße – 東京.md")), cuts)
    assert bytes(found.pending) == data
    assert found.n_file_bytes == len(data)
    assert found.filename == "Straße – 東京.md"
    assert found.fields == {"purpose": "assistants"}


@given(body=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_whatever_comes_is_a_form_or_a_refusal(body: bytes, cuts: list[int]) -> None:
    whole = form(PURPOSE, part("file", b"x", "a.txt"))
    for sent in (body, whole[: len(body)] + body, b"--" + BOUNDARY + b"\r\n" + body):
        with suppress(InvalidBody, InvalidParameter, TooLarge):
            read(sent, cuts)


@pytest.mark.parametrize("kept", [0, 10, 40, 90, 150, -20, -3])
def test_a_form_that_was_cut_off_is_refused(kept: int) -> None:
    whole = form(PURPOSE, part("file", b"x" * 50, "a.txt"))
    assert isinstance(refusal(whole[:kept]), InvalidBody)


@pytest.mark.parametrize(
    ("parts", "kind", "param"),
    [
        ([PURPOSE], InvalidParameter, "file"),
        ([part("file", b"not a file")], InvalidParameter, "file"),
        ([part("file", b"x", "")], InvalidParameter, "file"),
        ([part("file", b"", "empty.txt")], InvalidParameter, "file"),
        ([part("file", b"x", "a.txt")] * 2, InvalidParameter, "file"),
        ([PURPOSE, PURPOSE, part("file", b"x", "a.txt")], InvalidParameter, "purpose"),
        ([part("purpose", b"x", "a.txt")], InvalidParameter, "purpose"),
        ([part("purpose", b"x" * (MAX_FIELD_BYTES + 1))], InvalidParameter, "purpose"),
        ([part("purpose", b"\xff")], InvalidBody, None),
        ([part("file", b"eA==", "a.txt", b"content-transfer-encoding: base64\r\n")], InvalidBody, None),
        ([part(str(number), b"") for number in range(MAX_FIELDS + 1)], InvalidBody, None),
        ([part("file", b"x", "a.txt", b"h: v\r\n" * 20)], InvalidBody, None),
        ([part("file", b"x", "a" * 5_000)], InvalidBody, None),
        ([part("file", b"x", "a.txt", b"h: " + b"v" * 5_000 + b"\r\n")], InvalidBody, None),
        ([b"--%s\r\ncontent-type: text/plain\r\n\r\nx\r\n" % BOUNDARY], InvalidBody, None),
    ],
)
def test_what_is_wrong_is_named(parts: list[bytes], kind: type, param: str | None) -> None:
    error = refusal(form(*parts))
    assert isinstance(error, kind)
    assert error.param == param


def test_a_file_as_large_as_allowed_is_taken_and_one_byte_more_is_not() -> None:
    assert read(form(part("file", b"x" * 1_000, "a.txt")), most=1_000).n_file_bytes == 1_000
    assert isinstance(refusal(form(part("file", b"x" * 1_001, "a.txt")), most=1_000), TooLarge)


def test_what_stands_around_the_file_is_bounded_too() -> None:
    """Behind the last boundary a parser reads on, and keeps nothing."""
    whole = form(PURPOSE, part("file", b"x", "a.txt"))
    assert read(whole + b"\r\n" * 100).n_file_bytes == 1
    assert isinstance(refusal(whole + b"x" * (AROUND_BYTES + 1), most=1), TooLarge)


def test_a_refused_file_is_not_held() -> None:
    held = Form(BOUNDARY, 1_000)
    with pytest.raises(TooLarge):
        held.feed(form(part("file", b"x" * 60_000, "a.txt")))
    assert len(held.pending) <= 1_000


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a.txt", "a.txt"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        (" spaces .md ", "spaces .md"),
        ("Screenshot\u202f2024.png", "Screenshot\u202f2024.png"),
        ("👩‍👩‍👧.md", "👩‍👩‍👧.md"),
    ],
)
def test_a_filename_has_no_folders(sent: str, kept: str) -> None:
    assert clean_filename(sent) == kept


@pytest.mark.parametrize(
    "sent",
    [
        "",
        ".",
        "..",
        "/",
        "a/",
        "a\nb",
        "a\x00",
        "\u202egpj.exe",
        "a\U000e0041",
        "\u200bx",
        "x" * 256,
        "a\u2028b",
    ],
)
def test_a_filename_hides_nothing(sent: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        clean_filename(sent)
    assert caught.value.param == "file"
    assert caught.value.message.isprintable()


def request_of(
    pieces: Sequence[bytes], headers: dict[str, str] | None = None, *, leaves: bool = False
) -> Request:
    """A request whose body comes in these pieces; one that `leaves` goes away then, or else says nothing more."""
    waiting = [*pieces]

    async def receive() -> dict[str, Any]:
        if waiting:
            body = waiting.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(waiting) or leaves}
        if leaves:
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    sent = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"} | (headers or {})
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    return Request({"type": "http", "headers": raw}, receive)


async def received(request: Request, folder: Path, most: int = 10_000_000, patience_s: float = 10.0) -> bytes:
    async with receive_upload(
        request, folder, most, patience_s=patience_s, least_bytes_per_s=1_000_000
    ) as upload:
        return upload.read()


@pytest.mark.anyio
class TestReceiving:
    async def test_a_large_file_goes_through_the_disk_and_leaves_nothing_there(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 12_000
        body = form(PURPOSE, part("file", data, "a.bin"))
        pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
        assert await received(request_of(pieces), tmp_path) == data
        assert [*tmp_path.iterdir()] == []

    async def test_what_is_announced_too_large_is_not_read(self, tmp_path: Path) -> None:
        with pytest.raises(TooLarge):
            await received(
                request_of([], {"content-length": str(2 * AROUND_BYTES + 1)}), tmp_path, most=AROUND_BYTES
            )

    @pytest.mark.parametrize(
        "content_type",
        ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "b" * 300],
    )
    async def test_another_content_type_is_refused(self, content_type: str, tmp_path: Path) -> None:
        with pytest.raises(InvalidBody):
            await received(request_of([b"--"], {"content-type": content_type}), tmp_path)

    async def test_whoever_stops_sending_is_given_up(self, tmp_path: Path) -> None:
        stalled = request_of([form(PURPOSE)[:20], b"", b""])
        stalled._receive = _then_silence(stalled._receive)
        with pytest.raises(TimeoutError):
            await received(stalled, tmp_path, patience_s=0.05)

    async def test_whoever_is_slow_and_steady_is_waited_for(self, tmp_path: Path) -> None:
        """Every byte buys time: the first piece far more than the pause before the second."""
        body = form(PURPOSE, part("file", b"x" * 2_000, "a.txt"))
        steady = request_of([body[:1_000], body[1_000:]])
        told, receive = 0, steady._receive

        async def slowly() -> Any:
            nonlocal told
            if told:
                await asyncio.sleep(0.2)
            told += 1
            return await receive()

        steady._receive = slowly
        async with receive_upload(steady, tmp_path, MOST, patience_s=0.05, least_bytes_per_s=50) as upload:
            assert upload.size_bytes == 2_000

    async def test_whoever_leaves_leaves_nothing(self, tmp_path: Path) -> None:
        begun = form(PURPOSE, part("file", b"x" * 3_000_000, "a.bin"))[:-10]
        with pytest.raises(ClientDisconnect):
            await received(request_of([begun], leaves=True), tmp_path)
        assert [*tmp_path.iterdir()] == []


def _then_silence(receive: Any) -> Any:
    """The first message, and never another."""
    told = False

    async def once() -> Any:
        nonlocal told
        if told:
            await asyncio.sleep(60)
        told = True
        return await receive()

    return once

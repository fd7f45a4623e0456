"""What cannot be read is refused by name, with the reason and the next step; nothing else is ever raised."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import PurePath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sample_documents import archive, docx, epub, pdf, pptx, repacked, xlsx

from retrieval.errors import DocumentTooLarge, RetrievalError, UnreadableDocument, UnsupportedDocument
from retrieval.parse.document import SUFFIXES, parse
from retrieval.parse.limits import ParseLimits

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
ENCRYPTED_OFFICE = OLE + "EncryptedPackage".encode("utf-16-le")
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(ord("b") + n)} "{("&" + chr(ord("a") + n) + ";") * 10}">' for n in range(9))
    + ']><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>&j;</w:body></w:document>'
)
LIMITS = ParseLimits(max_pages=20, max_unpacked_bytes=20_000_000)


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    return {
        ".pdf": pdf([["one"], ["two"]]),
        ".docx": docx(),
        ".pptx": pptx(),
        ".xlsx": xlsx({"s": [["a", "b"], [1, 2]]}),
        ".epub": epub(["<p>text</p>"]),
    }


def refused(data: bytes, name: str, error: type[RetrievalError], reason: str) -> None:
    with pytest.raises(error, match=reason) as raised:
        parse(data, PurePath(name), LIMITS)
    assert str(raised.value).startswith(f"{name}: ")
    assert ";" in str(raised.value)


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".epub", ".pdf"])
def test_damaged_files_are_refused(samples: dict[str, bytes], suffix: str):
    data = samples[suffix]
    refused(data[:40], f"a{suffix}", UnreadableDocument, "damaged|cut short")
    refused(b"", f"a{suffix}", UnreadableDocument, "is empty")
    if suffix != ".pdf":  # which PDFium repairs where it can
        refused(data[: len(data) // 2], f"a{suffix}", UnreadableDocument, "cut short")


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".epub", ".pdf"])
def test_content_of_another_kind_than_the_name_is_refused(samples: dict[str, bytes], suffix: str):
    for other, kind in ((".pdf", "a PDF"), (".docx", "a Word document"), (".xlsx", "an Excel workbook")):
        if other != suffix:
            refused(samples[other], f"a{suffix}", UnsupportedDocument, f"looks like {kind}, not like an? ")
    refused(b"<!doctype html><p>x", f"a{suffix}", UnsupportedDocument, "looks like an HTML page")
    refused(b"only words", f"a{suffix}", UnsupportedDocument, "looks like text")
    refused(bytes(100), f"a{suffix}", UnsupportedDocument, "looks like binary data")
    refused(OLE, f"a{suffix}", UnsupportedDocument, "of the old kind")


def test_a_zip_without_the_document_is_refused():
    for suffix in (".docx", ".pptx", ".xlsx", ".epub"):
        refused(archive({"a.txt": "x"}), f"a{suffix}", UnreadableDocument, "holds no|lacks|damaged")
    refused(archive({"a.txt": "x"}), "a.pdf", UnsupportedDocument, "looks like a ZIP archive")


def test_encrypted_files_are_refused():
    refused(pdf([["x"]], encrypted=True), "a.pdf", UnreadableDocument, "is encrypted")
    refused(ENCRYPTED_OFFICE, "a.docx", UnreadableDocument, "is encrypted")
    locked = bytearray(archive({"word/document.xml": "x"}))
    locked[locked.rindex(b"PK\x01\x02") + 8] |= 1
    refused(bytes(locked), "a.docx", UnreadableDocument, "is encrypted")
    cipher = '<e xmlns:x="x"><x:CipherReference URI="OPS/c0.xhtml"/></e>'
    refused(
        epub(["x"], more={"META-INF/encryption.xml": cipher}), "a.epub", UnreadableDocument, "is encrypted"
    )
    fonts = cipher.replace("c0.xhtml", "a.otf")
    assert parse(epub(["x"], more={"META-INF/encryption.xml": fonts}), PurePath("a.epub")).sections


def test_a_pdf_of_pictures_says_so():
    refused(pdf([[], []]), "scan.pdf", UnreadableDocument, r"no text layer on its 2 pages.*OCR")


def test_too_many_pages_are_refused_before_they_are_read():
    refused(pdf([["x"]] * 21), "a.pdf", DocumentTooLarge, "21 pages, above the limit of 20")
    refused(epub(["x"] * 21), "a.epub", DocumentTooLarge, "21 chapters")
    refused(xlsx({f"s{n}": [["x"]] for n in range(21)}), "a.xlsx", DocumentTooLarge, "21 sheets")


def test_zip_bombs_are_refused_before_they_are_unpacked(samples: dict[str, bytes]):
    bomb = repacked(samples[".docx"], {"word/document.xml": bytes(18_000_000)})
    assert len(bomb) < 200_000
    refused(bomb, "a.docx", DocumentTooLarge, r"unpacks to \d+ times its size")
    refused(
        repacked(samples[".xlsx"], {"x": bytes(21_000_000)}), "a.xlsx", DocumentTooLarge, "above the limit of"
    )
    many = archive({f"{n}": "" for n in range(10_001)})
    refused(many, "a.docx", DocumentTooLarge, "packs 10001 files")
    crowded = archive({f"{n:02000}": "" for n in range(2_100)}, compressed=False)
    refused(crowded, "a.docx", DocumentTooLarge, "packs more than 10000 files")


def test_a_member_never_unpacks_to_more_than_it_declares(samples: dict[str, bytes]):
    lying = bytearray(repacked(samples[".docx"], {"word/document.xml": bytes(18_000_000)}))
    size = (18_000_000).to_bytes(4, "little")
    assert lying.count(size) == 2
    refused(bytes(lying.replace(size, (100).to_bytes(4, "little"))), "a.docx", UnreadableDocument, "damaged")


def test_entities_that_multiply_or_name_files_are_refused(samples: dict[str, bytes]):
    stolen = '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>'
    for markup in (LAUGHS, stolen):
        for encoding in ("utf-8", "utf-16"):
            data = repacked(samples[".docx"], {"word/document.xml": markup.encode(encoding)})
            refused(data, "a.docx", UnreadableDocument, "declares XML entities")
        refused(
            repacked(samples[".epub"], {"OPS/book.opf": markup.encode()}),
            "a.epub",
            UnreadableDocument,
            "damaged",
        )
        page = parse(epub([f"{markup}<p>end</p>"]), PurePath("a.epub"))
        assert "root:" not in str(page)
        assert len(str(page)) < 10_000


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"[" * 100_000, "a.json"),
        (b'{"a":' * 100_000, "a.json"),
        (b"<div>" * 10_000, "a.html"),
        (b"{" * 100_000, "a.js"),
        (b'"' * 100_001, "a.csv"),
        (b"(" * 100_000, "a.md"),
        (b"a | b " * 50_000 + b"\nx", "a.csv"),
        (b"class " * 50_000, "a.py"),
        (b"a " * 50_000 + b"(", "a.c"),
    ],
)
def test_nesting_without_end_is_read_or_refused(data: bytes, name: str):
    document_or_error(data, name)


def test_a_nested_word_document_is_refused(samples: dict[str, bytes]):
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    deep = f"<w:document {w}><w:body>{'<w:sdt><w:sdtContent>' * 5_000}"
    refused(
        repacked(samples[".docx"], {"word/document.xml": deep.encode()}),
        "a.docx",
        UnreadableDocument,
        "damaged",
    )


def test_a_huge_cell_and_a_far_one_are_read():
    huge = "word " * 100_000
    assert parse(f"k,v\na,{huge}\n".encode(), PurePath("a.csv")).sections[0].text.endswith("word")
    text = parse(xlsx({"s": [["k", "v"], ["a" * 32_767, 1]]}), PurePath("a.xlsx")).sections[0].text
    assert len(text) > 32_767


@given(
    suffix=st.sampled_from(sorted(SUFFIXES)),
    data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)),
)
@example(suffix=".docx", data=b"PK\x05\x06" + bytes(18))
@example(suffix=".pdf", data=b"%PDF-1.7")
@example(suffix=".txt", data=b"\xfe\xff\xd8\x00")
@example(suffix=".json", data=json.dumps({"\ud800": "\udfff"}).encode())
@settings(deadline=None, max_examples=120)
def test_any_bytes_give_a_document_or_a_typed_error(suffix: str, data: bytes):
    document_or_error(data, f"a{suffix}")


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".epub", ".pdf"])
@given(at=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=10)
def test_flipped_bytes_give_a_document_or_a_typed_error(samples, suffix: str, at: list[tuple[float, int]]):
    data = bytearray(samples[suffix])
    for place, value in at:
        data[int(place * len(data))] = value
    document_or_error(bytes(data), f"a{suffix}")


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".epub"])
@given(data=st.data())
@settings(deadline=None, max_examples=10)
def test_parts_of_nonsense_give_a_document_or_a_typed_error(samples, suffix: str, data: st.DataObject):
    with zipfile.ZipFile(io.BytesIO(samples[suffix])) as packed:
        name = data.draw(
            st.sampled_from([name for name in packed.namelist() if name.endswith(("l", "f", "s"))])
        )
        part = packed.read(name)
    kept = data.draw(st.integers(0, len(part)))
    noise = data.draw(
        st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode), st.just(b"<a/>"))
    )
    document_or_error(repacked(samples[suffix], {name: part[:kept] + noise}), f"a{suffix}")


def document_or_error(data: bytes, name: str) -> None:
    try:
        document = parse(data, PurePath(name), LIMITS)
    except RetrievalError as error:
        document, reason = None, str(error)
    if document is None:
        assert reason.startswith(f"{name}: ")
    else:
        assert all(section.text.strip() for section in document.sections)
        str(document).encode()  # no lone surrogates

"""Small documents of each kind, made with the libraries that write them or by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence


def pdf(
    pages: Sequence[Sequence[str]],
    bookmarks: Sequence[tuple[str, int]] = (),
    title: str = "",
    encrypted: bool = False,
) -> bytes:
    """A page for each list of lines; bookmarks are (title, page from 0)."""
    first_page = 4
    first_mark = first_page + 2 * len(pages)
    kids = " ".join(f"{first_page + 2 * n} 0 R" for n in range(len(pages)))
    root = "<< /Type /Catalog /Pages 2 0 R"
    if bookmarks:
        root += f" /Outlines {first_mark} 0 R"
    objects = [
        root + " >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, lines in enumerate(pages):
        shown = " ".join(f"({_escaped(line)}) Tj T*" for line in lines)
        content = f"BT /F1 11 Tf 14 TL 50 800 Td {shown} ET" if lines else ""
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {first_page + 2 * n + 1} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    if bookmarks:
        last = first_mark + len(bookmarks)
        objects.append(f"<< /Type /Outlines /First {first_mark + 1} 0 R /Last {last} 0 R >>")
        for n, (text, page) in enumerate(bookmarks):
            following = f"/Next {first_mark + n + 2} 0 R " if n + 1 < len(bookmarks) else ""
            objects.append(
                f"<< /Title ({_escaped(text)}) /Parent {first_mark} 0 R {following}"
                f"/Dest [{first_page + 2 * page} 0 R /Fit] >>"
            )
    objects.append(f"<< /Title ({_escaped(title)}) >>")
    trailer = f"/Root 1 0 R /Info {len(objects)} 0 R"
    if encrypted:
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >>")
        trailer += f" /Encrypt {len(objects)} 0 R /ID [<00><00>]"
    return _assembled(objects, trailer)


def _assembled(objects: Sequence[str], trailer: str) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table_at = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += "".join(f"{offset:010} 00000 n \n" for offset in offsets).encode()
    out += f"trailer << /Size {len(objects) + 1} {trailer} >>\nstartxref\n{table_at}\n%%EOF\n".encode()
    return bytes(out)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def docx() -> bytes:
    from docx import Document

    document = Document()
    document.add_heading("Handbook", 0)
    document.add_heading("Returns", 1)
    document.add_paragraph("Within 45 days.")
    document.add_paragraph("unused", style="List Bullet")
    document.add_heading("Fees", 2)
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["item", "fee", "lamp", "3 EUR"], strict=True):
        cell.text = text
    # What the styles look like is most of such a file, and takes most of the time to read.
    named = {"Title", "Heading1", "Heading2", "ListBullet", "Normal"}
    for style in list(document.styles.element):
        if style.get(f"{{{style.nsmap['w']}}}styleId") not in named:
            document.styles.element.remove(style)
    return repacked(_saved(document), {"word/stylesWithEffects.xml": b"<a/>"})


def pptx() -> bytes:
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Plan"
    first.placeholders[1].text = "build\nship"
    first.notes_slide.notes_text_frame.text = "Say it slowly."
    second = deck.slides.add_slide(deck.slide_layouts[6])
    table = second.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for at, text in enumerate(["city", "sales", "Rome", "7"]):
        table.cell(at // 2, at % 2).text = text
    hidden = deck.slides.add_slide(deck.slide_layouts[1])
    hidden.shapes.title.text = "Secret"
    hidden.element.set("show", "0")
    return _saved(deck)


def xlsx(sheets: dict[str, Sequence[Sequence[object]]], hidden: str = "") -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        if name == hidden:
            sheet.sheet_state = "hidden"
    return _saved(book)


def _saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def archive(members: dict[str, bytes | str], compressed: bool = True) -> bytes:
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else method)
    return out.getvalue()


def epub(chapters: Sequence[str], title: str = "A Book", more: dict[str, bytes | str] | None = None) -> bytes:
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in reversed(range(len(chapters))))
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>',
            "OPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf">'
            f'<metadata><dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">{title}</dc:title></metadata>'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
            **{f"OPS/text/c {n}.xhtml": chapter for n, chapter in enumerate(chapters)},
            **(more or {}),
        }
    )


def repacked(document: bytes, changes: dict[str, bytes]) -> bytes:
    """A ZIP container with some of its members replaced."""
    with zipfile.ZipFile(io.BytesIO(document)) as packed:
        members: dict[str, bytes | str] = {name: packed.read(name) for name in packed.namelist()}
    return archive(members | changes)

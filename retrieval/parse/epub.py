"""EPUB books: the chapters of the spine, in reading order (https://www.w3.org/TR/epub-33/)."""

from __future__ import annotations

import posixpath
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from retrieval.errors import DocumentTooLarge, UnreadableDocument
from retrieval.parse.archive import open_archive
from retrieval.parse.decode import decode
from retrieval.parse.html import read_html
from retrieval.parse.limits import ParseLimits
from retrieval.parse.outline import Outline

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html"})
_FONT_SUFFIXES = (".ttf", ".otf", ".woff", ".woff2")


def read_epub(data: bytes, outline: Outline, limits: ParseLimits) -> str:
    """Fill the outline; the return is the book's title."""
    with open_archive(data, limits) as archive:
        _require_not_encrypted(archive)
        rootfile = _xml(archive, _CONTAINER).find(".//{*}rootfile")
        if rootfile is None:
            raise UnreadableDocument("names no package document; get a complete copy")
        package_name = rootfile.get("full-path", "")
        package = _xml(archive, package_name)
        chapters = _chapters(package, posixpath.dirname(package_name))
        if len(chapters) > limits.max_pages:
            raise DocumentTooLarge(
                f"{len(chapters)} chapters, above the limit of {limits.max_pages}; split it or raise the limit"
            )
        for name in chapters:
            read_html(decode(_member(archive, name)), outline)
    title = package.find(".//{http://purl.org/dc/elements/1.1/}title")
    return (title.text or "").strip() if title is not None else ""


def _chapters(package: Element, folder: str) -> list[str]:
    """The members of the spine, each once."""
    pages = {
        item.get("id"): posixpath.normpath(
            posixpath.join(folder, unquote(urlsplit(item.get("href", "")).path))
        )
        for item in package.findall("{*}manifest/{*}item")
        if item.get("media-type") in _PAGES and "nav" not in item.get("properties", "").split()
    }
    spine = [item.get("idref") for item in package.findall("{*}spine/{*}itemref")]
    return list(dict.fromkeys(pages[chapter] for chapter in spine if chapter in pages))


def _require_not_encrypted(archive: zipfile.ZipFile) -> None:
    """Many books obfuscate their fonts, which is no matter for the text."""
    if _ENCRYPTION in archive.namelist():
        ciphered = _xml(archive, _ENCRYPTION).findall(".//{*}CipherReference")
        if any(not item.get("URI", "").lower().endswith(_FONT_SUFFIXES) for item in ciphered):
            raise UnreadableDocument("is encrypted; get a copy without copy protection")


def _xml(archive: zipfile.ZipFile, name: str) -> Element:
    from defusedxml.ElementTree import fromstring

    root: Element = fromstring(_member(archive, name))
    return root


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError as error:
        raise UnreadableDocument(f"lacks its part {name[:100]!r}; get a complete copy") from error

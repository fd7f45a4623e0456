"""The report as one HTML file that needs nothing else: no server, no network, no other file.

The drawing, its frame and its style are the load tester's (`loadtest/report/page`); `cache.js` adds the plots of this
report. Questions and answers are not in the file.
"""

from __future__ import annotations

import html
import re
from importlib.resources import files
from pathlib import Path

import msgspec

from loadtest.report.html import ESCAPED, content_policy
from loadtest.report.partial_file import replacing
from server.evaluation.report import Report

_SHARED = files("loadtest.report").joinpath("page")
_OWN = files("server.evaluation").joinpath("page")
_SHARED_SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "element.js", "plots.js", "tables.js")


def write_page(report: Report, path: Path) -> None:
    with replacing(path) as file:
        file.write(page_of(report))


def page_of(report: Report) -> bytes:
    scripts = [_SHARED.joinpath(name).read_text("utf-8") for name in _SHARED_SCRIPTS]
    scripts.append(_OWN.joinpath("cache.js").read_text("utf-8"))
    slots = {
        "title": html.escape(f"The cache: {report.conditions.model}"),
        "policy": content_policy(scripts),
        "style": _SHARED.joinpath("style.css").read_text("utf-8")
        + _OWN.joinpath("cache.css").read_text("utf-8"),
        "data": _data(report).decode(),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    template = _SHARED.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], template).encode()


def _data(report: Report) -> bytes:
    encoded = msgspec.json.encode(msgspec.structs.replace(report, observations=()))
    for character, escape in ESCAPED:
        encoded = encoded.replace(character, escape)
    return encoded

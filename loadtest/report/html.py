"""The report as one HTML file that needs nothing else: no server, no network, no other file.

What a server or a workload said is data in it, never markup: the page puts it into text nodes. The page's security
policy lets run the scripts that are written here, known by their sha256, and nothing else. Errors: `OSError` from the disk.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from pathlib import Path

import msgspec

from loadtest.figures.document import Conditions, Config, Lateness, Report, Stage, Summary, Sweep, Verdict
from loadtest.report.partial_file import replacing
from loadtest.report.plot_data import StagePlots, stage_plots

DOTS = 4_000
"""Turns drawn at most, in all stages together."""
_DOTS_OF_A_STAGE = 500
_EXAMPLE_CHARACTERS = 1_000

_PAGE = files("loadtest.report").joinpath("page")
_SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.umd.min.js",
    "element.js",
    "figures.js",
    "plots.js",
    "charts.js",
    "timeline.js",
    "tables.js",
    "page.js",
)
# In a script element `<` could end it, and older scripts take these two separators for ends of lines.
ESCAPED = ((b"<", b"\\u003c"), ("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))


class PageStage(msgspec.Struct, frozen=True):
    """A `Stage` with plots in place of its turns and histograms."""

    name: str
    loop: str
    rate_per_s: float | None
    concurrency: int | None
    summary: Summary
    client: Lateness
    verdicts: tuple[Verdict, ...]
    plots: StagePlots


class PageData(msgspec.Struct, frozen=True):
    """What the page's scripts read."""

    created: str
    command: str
    interrupted: bool
    config: Config
    conditions: Conditions
    sweep: Sweep | None
    stages: tuple[PageStage, ...]


def write_html(report: Report, path: Path) -> None:
    with replacing(path) as file:
        file.write(html_of(report))


def html_of(report: Report) -> bytes:
    scripts = [_PAGE.joinpath(name).read_text("utf-8") for name in _SCRIPTS]
    slots = {
        "title": html.escape(f"Load test of {report.config.model or 'a model'} at {report.config.url}"),
        "policy": content_policy(scripts),
        "style": _PAGE.joinpath("style.css").read_text("utf-8"),
        "data": _data(report).decode(),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    template = _PAGE.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], template).encode()


def content_policy(scripts: list[str]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(report: Report) -> bytes:
    dots = max(_DOTS_OF_A_STAGE, DOTS // max(1, len(report.stages)))
    data = PageData(
        created=report.created,
        command=report.command,
        interrupted=report.interrupted,
        config=report.config,
        conditions=report.conditions,
        sweep=report.sweep,
        stages=tuple(_stage(stage, dots) for stage in report.stages),
    )
    encoded = msgspec.json.encode(data)
    for character, escape in ESCAPED:
        encoded = encoded.replace(character, escape)
    return encoded


def _stage(stage: Stage, dots: int) -> PageStage:
    errors = tuple(
        msgspec.structs.replace(kind, example=_shortened(kind.example)) for kind in stage.summary.errors
    )
    return PageStage(
        name=stage.name,
        loop=stage.loop,
        rate_per_s=stage.rate_per_s,
        concurrency=stage.concurrency,
        summary=msgspec.structs.replace(stage.summary, errors=errors),
        client=stage.client,
        verdicts=stage.verdicts,
        plots=stage_plots(stage, dots),
    )


def _shortened(example: str) -> str:
    return (
        example
        if len(example) <= _EXAMPLE_CHARACTERS
        else f"{example[:_EXAMPLE_CHARACTERS]}… (cut short here)"
    )

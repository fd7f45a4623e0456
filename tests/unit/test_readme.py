"""The words of the documents are the words of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.settings import PROJECT_ROOT

README = (PROJECT_ROOT / "README.md").read_text()
PAGES = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]


def test_the_life_of_a_turn_has_the_same_words_in_the_readme_and_in_the_code() -> None:
    told = re.findall(r"^(\d)\. \*\*(\w+)\*\*", README, re.MULTILINE)
    code = (PROJECT_ROOT / "server" / "turn.py").read_text()
    done = re.findall(r"(?:#|;|^) *(\d)\. \*?(\w+)", code, re.MULTILINE)
    assert len(told) == 8
    assert sorted(set(done)) == told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_every_error_code_is_in_the_handbook() -> None:
    codes = re.findall(
        r'^    code = "(\w+)"', (PROJECT_ROOT / "server" / "errors.py").read_text(), re.MULTILINE
    )
    page = (PROJECT_ROOT / "docs" / "errors.md").read_text()
    assert len(codes) > 10
    assert [code for code in codes if f"`{code}`" not in page] == []


def test_every_metric_is_in_the_handbook() -> None:
    rooms = ("parts.py", "telemetry/metrics.py")
    code = "".join((PROJECT_ROOT / "server" / room).read_text() for room in rooms)
    names = set(re.findall(r'"(firstword_\w+)"', code))
    page = (PROJECT_ROOT / "docs" / "metrics.md").read_text()
    assert len(names) > 12
    assert [name for name in sorted(names) if name not in page] == []

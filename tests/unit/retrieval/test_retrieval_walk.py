from __future__ import annotations

from pathlib import Path

from retrieval.ingest.walk import walk


def test_folders_give_every_kind_that_can_be_parsed(tmp_path: Path):
    names = ["a.pdf", "b.DOCX", "c.xlsx", "d.epub", "e.json", "f.py", "g.txt", "sub/h.pptx"]
    skipped = [
        ".hidden.md",
        ".git/config.ini",
        "node_modules/x/index.js",
        "__pycache__/f.py",
        "app.min.js",
        "package-lock.json",
        "photo.png",
        "uv.lock",
    ]
    for name in names + skipped:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = walk([tmp_path])
    assert [file.filename for file in found.files] == names
    assert found.n_skipped == 5  # folders that are passed over are not looked into
    assert found.folders == [str(tmp_path.resolve())]


def test_a_file_that_is_named_is_taken_whatever_it_is(tmp_path: Path):
    (tmp_path / "package-lock.json").write_text("{}")
    found = walk([tmp_path / "package-lock.json", tmp_path / "gone"])
    assert [file.filename for file in found.files] == ["package-lock.json"]
    assert [path.name for path, _ in found.missing] == ["gone"]

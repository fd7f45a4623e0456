from __future__ import annotations

from bench.frames import renderings, said_by


def test_all_renderings_say_the_same() -> None:
    said = [said_by(render('a "word" 👋')) for render in renderings().values()]
    assert all(other == said[0] for other in said[1:])

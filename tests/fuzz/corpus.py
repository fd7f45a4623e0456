"""Every input that ever failed, kept as the bytes that were sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fuzz.case import Case

FOLDER = Path(__file__).parent / "corpus"


def kept() -> Sequence[Path]:
    return sorted(FOLDER.glob("*.bin"))


def read(path: Path) -> Case:
    return Case(path.stem.rpartition("-")[0], (path.read_bytes(),))


def keep(case: Case) -> Path:
    digest = hashlib.sha256(case.sent).hexdigest()[:10]
    path = FOLDER / f"{case.kind.replace(' ', '_')}-{digest}.bin"
    FOLDER.mkdir(exist_ok=True)
    path.write_bytes(case.sent)
    return path

"""ContextPilot, asked in a process of its own environment for the requests that its user would send."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bench.contextpilot.conversation import Conversation
from bench.contextpilot.request import Request, Serving
from bench.process import BENCH_DIR
from server.sections.prompt import PromptSettings

PYTHON = BENCH_DIR / "contextpilot" / "bin" / "python"
_PILOT = Path(__file__).with_name("pilot.py")
_LAST_CHARACTERS = 2_000

Way = Literal["reorder", "deduplicate"]
"""See `pilot.py`."""


class Answer(msgspec.Struct, frozen=True):
    version: str
    spent_s: float
    """In ContextPilot's calls, over all requests."""
    requests: list[Request]


def ask(way: Way, serving: Serving, conversations: Sequence[Conversation]) -> Answer:
    """Raises `RuntimeError` with the last of what it wrote when it fails."""
    job = {
        "way": way,
        "serving": serving,
        "system": PromptSettings().system,
        "conversations": conversations,
    }
    # -I: neither this folder nor PYTHONPATH is searched for modules.
    ended = subprocess.run(
        [str(PYTHON), "-I", str(_PILOT)], input=msgspec.json.encode(job), capture_output=True, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"ContextPilot, {way}, {serving}: {ended.stderr.decode()[-_LAST_CHARACTERS:]}")
    answer = msgspec.json.decode(ended.stdout, type=Answer)
    asked = sorted(
        (place, turn) for place, told in enumerate(conversations) for turn in range(len(told.turns))
    )
    if sorted((request.conversation, request.turn) for request in answer.requests) != asked:
        raise RuntimeError(f"ContextPilot, {way}, {serving}: not one request for every turn")
    return answer

"""Small data and observations, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.evaluation.figures import Mode, Observation
from server.evaluation.report import Conditions, Failure, Order, Report, make_report

PASSAGES = [
    {
        "id": "tax-1",
        "collection": "tax",
        "text": "Income tax returns are due on the fifteenth of April each year.",
    },
    {"id": "tax-2", "collection": "tax", "text": "A late return costs a penalty of five percent per month."},
    {
        "id": "tax-3",
        "collection": "tax",
        "text": "An extension of the deadline can be asked for with form 4868.",
    },
    {
        "id": "sea-1",
        "collection": "sea",
        "text": "The tide follows the moon: two high waters each lunar day.",
    },
    {"id": "sea-2", "collection": "sea", "text": "A spring tide comes at new moon and at full moon."},
]


def conversation(
    name: str, collection: str = "tax", turns: int = 2, relevant: tuple[str, ...] = ()
) -> dict[str, Any]:
    asked = [
        "When are income tax returns due?",
        "What does a late return cost?",
        "Can the deadline be moved?",
    ]
    return {
        "id": name,
        "collection": collection,
        "turns": [
            {"user": f"{asked[at % 3]} ({name})", "agent": f"Reference {at + 1} about returns"}
            for at in range(turns)
        ],
        "relevant": list(relevant),
    }


def write_data(
    folder: Path, conversations: list[dict[str, Any]], passages: list[dict[str, Any]] | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (
        ("passages.jsonl", PASSAGES if passages is None else passages),
        ("conversations.jsonl", conversations),
    ):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def observation(
    mode: Mode = "system", conversation: str = "c0", turn: int = 1, **changed: Any
) -> Observation:
    values: dict[str, Any] = {
        "collection": "tax",
        "ttft_ms": 100.0,
        "prefill_ms": 80.0,
        "prompt_tokens": 1_000,
        "cached_tokens": 200,
        "plain_computed_tokens": 900,
        "ahead_tokens": 0,
        "compaction": None,
        "completion_tokens": 20,
        "tpot_ms": 10.0,
        "finish_reason": "stop",
        "f1": 0.5,
        "containment": 0.5,
        "source_precision": None,
        "source_recall": None,
        "names_relevant": None,
        "passages": ("tax-1",),
        "question": "When?",
        "answer": "In April.",
    }
    return Observation(mode=mode, conversation=conversation, turn=turn, **values | changed)


def report_of(
    observations: list[Observation], failures: tuple[Failure, ...] = (), interrupted: bool = False
) -> Report:
    order = Order(
        modes=tuple(dict.fromkeys(turn.mode for turn in observations)) or ("system",),
        conversations=None,
        min_turns=1,
        max_turns=None,
        turns=None,
        top_k=4,
        max_tokens=16,
        replies="own",
        words_per_minute=40.0,
        think_s=0.0,
        seed=0,
    )
    conditions = Conditions(
        tool="firstword",
        python="3",
        machine="a machine",
        device="",
        model="</script><img src=x>",
        engine="simulated",
        embedder="hashing",
        max_model_len=4_096,
        block_size=16,
        kv_blocks=1_024,
        data="made up",
        data_sha256="0" * 64,
        settings={"prompt": {"system": "Be brief."}},
    )
    return make_report(order, conditions, observations, failures, {"finished": 3}, interrupted=interrupted)

"""The CSV file: every turn, one row, and no cell that a spreadsheet would compute."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import pytest
from sample_report import sample_report

from loadtest.figures.document import Report
from loadtest.figures.turn_result import TurnResult
from loadtest.report.csv_file import COLUMNS, write_csv


def rows_of(report: Report, path: Path) -> list[dict[str, str]]:
    write_csv(report, path)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def with_turn(**changed: object) -> Report:
    """A report of one turn."""
    report = sample_report(conversations=2, turns=1, gaps=4, failing=0)
    turn: TurnResult = msgspec.structs.replace(report.stages[0].turns[0], **changed)
    return msgspec.structs.replace(report, stages=(msgspec.structs.replace(report.stages[0], turns=(turn,)),))


def test_every_turn_of_every_stage_has_a_row_when_some_failed_or_warmed_up(tmp_path: Path) -> None:
    report = sample_report(stages=2, conversations=30, turns=3, failing=0.2)
    rows = rows_of(report, tmp_path / "turns.csv")
    assert [(row["stage"], row["request_id"], row["outcome"], row["warmup"]) for row in rows] == [
        (stage.name, turn.request_id, turn.outcome, "true" if turn.warmup else "false")
        for stage in report.stages
        for turn in stage.turns
    ]
    assert {row["warmup"] for row in rows} == {"true", "false"}
    assert {"ok", "refused"} <= {row["outcome"] for row in rows}


def test_columns_stay_in_their_documented_order(tmp_path: Path) -> None:
    write_csv(with_turn(), tmp_path / "turns.csv")
    header = (tmp_path / "turns.csv").read_bytes().split(b"\r\n")[0].decode()
    assert header.split(",") == list(COLUMNS)
    assert header.startswith(
        "stage,conversation_id,holding,turn,request_id,warmup,outcome,status,detail,due_s,"
    )


def test_durations_are_those_of_the_turn(tmp_path: Path) -> None:
    [row] = rows_of(
        with_turn(itl_us=(1_000, 2_000, 9_000), output_tokens=4, ttft_ms=50.0, held_ms=20.0, late_ms=5.0),
        tmp_path / "turns.csv",
    )
    assert [row["ttft_ms"], row["sent_ttft_ms"], row["tpot_ms"]] == ["50.0", "25.0", "4.0"]
    gaps = [row[f"itl_{name}"] for name in ("count", "mean_ms", "p50_ms", "p99_ms", "max_ms")]
    assert gaps == ["3", "4.0", "2.0", "8.86", "9.0"]


def test_a_cell_is_empty_when_the_turn_never_got_there(tmp_path: Path) -> None:
    [row] = rows_of(
        with_turn(outcome="connection", status=None, ttft_ms=None, itl_us=(), output_tokens=0, server=None),
        tmp_path / "turns.csv",
    )
    empty = ("status", "ttft_ms", "sent_ttft_ms", "tpot_ms", "itl_mean_ms", "server_source", "server_ttft_ms")
    assert [row[name] for name in empty] == [""] * len(empty)
    assert row["itl_count"] == "0"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_is_guarded_when_it_starts_like_a_formula(tmp_path: Path, start: str) -> None:
    [row] = rows_of(with_turn(detail=f"{start}1+1", conversation_id=f"{start}2"), tmp_path / "turns.csv")
    assert row["detail"] == f"'{start}1+1"
    assert row["conversation_id"] == f"'{start}2"


def test_a_number_is_not_guarded_when_it_is_negative(tmp_path: Path) -> None:
    [row] = rows_of(with_turn(due_s=-1.5), tmp_path / "turns.csv")
    assert row["due_s"] == "-1.5"


def test_text_comes_back_as_it_was_when_it_has_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    text = 'a,b "c"\r\nd\ne – ü'
    [row] = rows_of(with_turn(detail=text), tmp_path / "turns.csv")
    assert row["detail"] == text


def test_the_old_file_stands_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "turns.csv"
    path.write_text("old")
    broken = msgspec.structs.replace(with_turn(), stages=(None,))
    with pytest.raises(AttributeError):
        write_csv(broken, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("turns.csv", "old")]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_csv(with_turn(), tmp_path / "none" / "turns.csv")

"""What is read from the data's folder, what is refused, and which conversations are taken."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from evaluation_made import PASSAGES, conversation, write_data

from server.errors import ConfigError
from server.evaluation.data import Conversation, choose, read_data

GOOD = conversation("a", relevant=("tax-1",))


def many(n_tax: int, n_sea: int, turns: int = 2) -> list[Conversation]:
    made = [conversation(f"tax {at}", "tax", turns) for at in range(n_tax)]
    made += [conversation(f"sea {at}", "sea", turns) for at in range(n_sea)]
    return [msgspec.convert(row, Conversation) for row in made]


def test_everything_on_the_lines_is_read(tmp_path: Path) -> None:
    data = read_data(write_data(tmp_path / "few", [GOOD, conversation("b", "sea", 3)]))
    assert {name: [passage.id for passage in held] for name, held in data.passages.items()} == {
        "tax": ["tax-1", "tax-2", "tax-3"],
        "sea": ["sea-1", "sea-2"],
    }
    assert [len(held.turns) for held in data.conversations] == [2, 3]
    assert data.conversations[0].relevant == {"tax-1"}
    assert data.name == "few"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"turns": []}, "there is no turn"),
        ({"turns": [{"user": " ", "agent": "x"}]}, "turn 1 is blank"),
        ({"turns": [{"user": "x"}]}, "missing required field `agent`"),
        ({"collection": "law"}, "no passage has the collection 'law'"),
        ({"relevant": ["sea-1"]}, "no passage 'sea-1'"),
        ({"id": "a"}, "the id 'a' stands on an earlier line too"),
        ({"id": 3}, "Expected `str`"),
    ],
)
def test_a_bad_conversation_is_named_by_its_line(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    folder = write_data(tmp_path, [GOOD, conversation("b") | changed])
    with pytest.raises(ConfigError, match=r"^conversations\.jsonl, line 2: ") as caught:
        read_data(folder)
    assert told in caught.value.message
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"id": "x", "text": "y"', "line 6"),
        (b"\xff", "line 6"),
        (json.dumps(PASSAGES[0]).encode(), "stands on an earlier line too"),
        (b'{"id": "x", "text": " ", "collection": "tax"}', "must not be blank"),
        (b"[" * 100_000, "line 6"),
    ],
)
def test_a_bad_passage_is_named_by_its_line(tmp_path: Path, line: bytes, told: str) -> None:
    folder = write_data(tmp_path, [GOOD])
    with (folder / "passages.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(ConfigError, match=r"^passages\.jsonl, line 6: ") as caught:
        read_data(folder)
    assert told in caught.value.message


def test_a_folder_without_the_files_or_with_empty_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"passages\.jsonl cannot be read"):
        read_data(tmp_path)
    with pytest.raises(ConfigError, match=r"conversations\.jsonl is empty"):
        read_data(write_data(tmp_path, []))


def test_a_choice_keeps_the_proportions_of_the_collections_wherever_it_is_cut() -> None:
    chosen = choose(many(60, 20), None)
    assert len(chosen) == 80
    for n in range(4, 81, 4):
        counted = Counter(held.collection for held in chosen[:n])
        assert abs(counted["sea"] - n / 4) <= 1


def test_a_choice_depends_on_the_seed_and_not_on_the_order_of_the_lines() -> None:
    held = many(20, 10)
    assert choose(held, 9, seed=1) == choose(held[::-1], 9, seed=1)
    assert choose(held, 9, seed=1) != choose(held, 9, seed=2)
    assert choose(held, 20, seed=1)[:9] == choose(held, 9, seed=1)


def test_only_conversations_of_the_wanted_length_are_chosen() -> None:
    held = [*many(3, 0, turns=1), *many(0, 3, turns=4)]
    assert {len(one.turns) for one in choose(held, None, min_turns=2)} == {4}
    assert {len(one.turns) for one in choose(held, None, max_turns=3)} == {1}
    with pytest.raises(ConfigError, match="no conversation has 5 turns or more"):
        choose(held, None, min_turns=5)

"""Conversations replayed on the simulated engine: what each mode sends, shares and keeps apart."""

from __future__ import annotations

import asyncio
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from evaluation_made import PASSAGES, conversation, write_data
from rich.console import Console
from typer.testing import CliRunner

from server.context.template import ChatTemplate
from server.errors import ConfigError
from server.evaluation import replay, run
from server.evaluation.cli import app
from server.evaluation.figures import MODES, Mode, Observation
from server.evaluation.replay import typing_s
from server.evaluation.report import Order, Report
from server.evaluation.run import evaluate_cache
from server.settings import load_settings

Evaluate = Callable[..., tuple[Report, int]]

LONG = " Whoever is late pays; whoever asks in time does not." * 8
LONGER_PASSAGES = [passage | {"text": passage["text"] + LONG} for passage in PASSAGES]
CONVERSATIONS = [conversation("a", turns=3, relevant=("tax-1",)), conversation("b", "sea", turns=2)]


def order(**changed: Any) -> Order:
    values: dict[str, Any] = {
        "modes": MODES,
        "conversations": None,
        "min_turns": 1,
        "max_turns": None,
        "turns": None,
        "top_k": 2,
        "max_tokens": 8,
        "replies": "own",
        "words_per_minute": 40.0,
        "think_s": 0.0,
        "seed": 0,
    }
    return Order(**values | changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def evaluate(folder: Path, chat_model_path: Path, template: ChatTemplate) -> Iterator[Evaluate]:
    """Runs an evaluation over the conversations; its document, and the exit code."""
    settings = load_settings(
        None,
        {
            "data_dir": folder / "var",
            "engine.kind": "simulated",
            "engine.model": str(chat_model_path),
            "engine.tool_parser": "",
            "engine.simulated.prefill_tokens_per_s": 200_000.0,
            "engine.simulated.token_interval_ms": 0.0,
            "retrieval.embedder_kind": "hashing",
            "retrieval.min_score": -1.0,
        },
    )

    def evaluate(conversations: list[dict[str, Any]] = CONVERSATIONS, **changed: Any) -> tuple[Report, int]:
        data = write_data(folder / "data", conversations, LONGER_PASSAGES)
        output = folder / "out.json"
        console = Console(file=io.StringIO(), width=200)
        code = evaluate_cache(settings, data, order(**changed), output, page=True, console=console)
        return msgspec.json.decode(output.read_bytes(), type=Report), code

    async def until_nothing_is_prefilled(moment: float) -> None:
        """Instead of the time it takes to type."""
        while any(task.get_name() == "prewarm" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.001)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "_until", until_nothing_is_prefilled)
        patch.setattr("server.parts.ChatTemplate", lambda model: template)
        yield evaluate


@pytest.fixture(scope="module")
def whole(evaluate: Evaluate) -> Report:
    report, code = evaluate()
    assert (code, report.failures, report.interrupted, report.left_out) == (0, (), False, 0)
    return report


def by_mode(report: Report) -> dict[Mode, list[Observation]]:
    found: dict[Mode, list[Observation]] = defaultdict(list)
    for observation in report.observations:
        found[observation.mode].append(observation)
    return found


def computed(report: Report, conversation: str, *, first: bool) -> dict[Mode, int]:
    return {
        mode: sum(
            turn.computed_tokens
            for turn in held
            if turn.conversation == conversation and (turn.turn == 1) == first
        )
        for mode, held in by_mode(report).items()
    }


def test_every_mode_holds_every_turn_with_the_same_retrieval(whole: Report) -> None:
    seen = by_mode(whole)
    assert set(seen) == set(MODES)
    wanted = sorted((turn.conversation, turn.turn, turn.passages) for turn in seen["system"])
    assert [turn[:2] for turn in wanted] == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]
    for held in seen.values():
        assert sorted((turn.conversation, turn.turn, turn.passages) for turn in held) == wanted
    for turn in whole.observations:
        assert turn.ttft_ms >= turn.prefill_ms > 0
        assert 0 <= turn.cached_tokens < turn.prompt_tokens
        assert turn.completion_tokens == 8
        assert all(passage.startswith(f"{turn.collection}-") for passage in turn.passages)
        assert (turn.source_recall is not None) == (turn.conversation == "a" and turn.turn == 3)


def test_a_prompt_that_only_grows_computes_less_and_typing_ahead_least(whole: Report) -> None:
    later = computed(whole, "a", first=False)
    assert later["append"] < later["system"]
    assert later["append"] < later["user"]
    assert later["type-ahead"] < later["append+order"]
    first = computed(whole, "a", first=True)
    assert first["type-ahead"] < first["append"]
    assert whole.prewarms["used"] == len(by_mode(whole)["type-ahead"])
    for turn in whole.observations:
        assert turn.mode == "type-ahead" or turn.ahead_tokens == 0
    assert any(turn.ahead_tokens for turn in whole.observations)


def test_nothing_of_the_deployment_is_touched_but_the_vectors(whole: Report, folder: Path) -> None:
    assert [path.name for path in (folder / "var").iterdir()] == ["evaluation"]
    assert (folder / "out.html").stat().st_size > 100_000


def spy_on_asking(patch: pytest.MonkeyPatch, look: Callable[[Any, str], None]) -> None:
    ask = replay._ask

    async def spy(request: Any, tenant: str, parts: Any) -> Any:
        look(request, tenant)
        return await ask(request, tenant, parts)

    patch.setattr(replay, "_ask", spy)


def assistant_messages(request: Any) -> list[str]:
    return [message.content for message in request.messages if message.role == "assistant"]


def test_no_mode_finds_what_another_has_computed_and_its_own_replies_are_its_history(
    evaluate: Evaluate, whole: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    spy_on_asking(monkeypatch, lambda request, tenant: asked.append(assistant_messages(request)))
    alone, _ = evaluate(modes=("append",))
    held = [(turn.conversation, turn.turn, turn.cached_tokens) for turn in by_mode(whole)["append"]]
    assert held == [(turn.conversation, turn.turn, turn.cached_tokens) for turn in alone.observations]
    answers = {(turn.conversation, turn.turn): turn.answer for turn in alone.observations}
    assert [answers["a", 1], answers["a", 2]] in asked


def test_only_the_first_turns_are_held_with_the_datas_replies(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    spy_on_asking(monkeypatch, lambda request, tenant: asked.append(assistant_messages(request)))
    report, _ = evaluate(CONVERSATIONS[:1], modes=("append",), replies="reference", turns=2)
    assert [turn.turn for turn in report.observations] == [1, 2]
    assert asked[-1] == ["Reference 1 about returns"]
    assert all(turn.source_recall is None for turn in report.observations), "the last turn was not held"


def test_a_conversation_that_breaks_is_reported_and_the_others_go_on(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_b_in_append(request: Any, tenant: str) -> None:
        if (
            tenant == "evaluation append"
            and request.messages[-1].content == "What does a late return cost? (b)"
        ):
            raise RuntimeError("it broke")

    spy_on_asking(monkeypatch, break_b_in_append)
    report, code = evaluate([conversation(name) for name in ("a", "b")], modes=("system", "append"))
    assert code == 1
    [failure] = report.failures
    assert (failure.conversation, failure.mode, failure.turn) == ("b", "append", 2)
    assert failure.error == "RuntimeError: it broke"
    assert (report.turns, report.left_out) == (7, 1)


def test_an_interrupt_keeps_what_is_done(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt_at_b(request: Any, tenant: str) -> None:
        if request.messages[-1].content.endswith("(b)"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # what the loop's runner does on Ctrl-C

    spy_on_asking(monkeypatch, interrupt_at_b)
    monkeypatch.setattr(run, "choose", lambda conversations, *_, **__: list(conversations))
    report, code = evaluate([conversation(name) for name in ("a", "b")], modes=("system", "append"))
    assert (code, report.interrupted) == (130, True)
    assert [turn.conversation for turn in report.observations] == ["a"] * 4


def test_typing_takes_the_time_it_takes_and_pasting_none() -> None:
    assert typing_s("x" * 200, 40) == pytest.approx(60)
    assert typing_s("x" * 2_001, 40) == 0


def test_an_unknown_mode_and_a_place_that_is_no_file_are_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    told = CliRunner().invoke(app, ["cache", str(tmp_path), "--modes", "append,psychic"])
    assert isinstance(told.exception, ConfigError)
    assert "no mode 'psychic'" in told.exception.message
    told = CliRunner().invoke(app, ["cache", str(tmp_path), "--output", str(tmp_path / "none" / "x.json")])
    assert isinstance(told.exception, ConfigError)
    assert "--output" in told.exception.message

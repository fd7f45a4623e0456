"""`firstword eval cache`: real conversations through the engine in every mode, then the report."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape

from server.errors import ConfigError, ModelMissing
from server.evaluation.conditions import conditions_of
from server.evaluation.data import Conversation, Data, choose, read_data
from server.evaluation.figures import Mode, Observation
from server.evaluation.knowledge import Collection, open_collections
from server.evaluation.page import write_page
from server.evaluation.progress import Progress
from server.evaluation.replay import Manner, hold, prewarms_of, sampling_of, settings_of
from server.evaluation.report import Failure, Order, Report, make_report, write_json
from server.evaluation.tables import print_report
from server.knowledge import make_embedder
from server.parts import (
    Parts,
    chat_model,
    model_name,
    open_parts,
    parts_with,
    uses_starter,
)
from server.sections.section import STARTER
from server.settings import Settings
from server.starter import starter_embedder, starter_is_prepared

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def evaluate_cache(
    settings: Settings, folder: Path, order: Order, output: Path, *, page: bool, console: Console
) -> int:
    """Returns the exit code: 0 when every conversation was held in every mode.

    Raises `SetupError` or `RetrievalError` when nothing can be measured.
    """
    _check_output(output)
    data = read_data(folder)
    chosen = choose(
        data.conversations,
        order.conversations,
        min_turns=order.min_turns,
        max_turns=order.max_turns,
        seed=order.seed,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(_evaluate(settings, data, chosen, order, console))
    print_report(report, console)
    write_json(report, output)
    console.print(f"everything that was seen: {escape(str(output))}", highlight=False, soft_wrap=True)
    if page:
        write_page(report, output.with_suffix(".html"))
        console.print(
            f"the report: {escape(str(output.with_suffix('.html')))}", highlight=False, soft_wrap=True
        )
    if report.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if report.failures or not report.summaries else 0


def _check_output(output: Path) -> None:
    """Before hours are spent on what cannot be kept."""
    if not output.resolve().parent.is_dir() or output.is_dir():
        raise ConfigError(
            f"--output {output}: there is no such folder, or it is a folder itself",
            next_step="name a file in an existing folder",
        )


async def _evaluate(
    settings: Settings, data: Data, chosen: Sequence[Conversation], order: Order, console: Console
) -> Report:
    with tempfile.TemporaryDirectory(prefix="firstword-evaluation-") as temporary:
        own = _own_settings(settings, Path(temporary))
        with Progress(console) as progress:
            async with open_parts(own, progress.phase) as parts:
                wanted = {conversation.collection for conversation in chosen}
                passages = {name: held for name, held in data.passages.items() if name in wanted}
                embedder = await asyncio.to_thread(make_embedder, own)
                vectors_dir = settings.data_path / "evaluation"
                async with open_collections(
                    own, passages, embedder, parts.template, vectors_dir, progress.embedded
                ) as knowledge:
                    await _engine_ready(parts, progress)
                    conditions = conditions_of(parts, embedder, data)
                    course = _Course(order, parts, knowledge, progress)
                    with _quiet_collector():
                        interrupted = await course.run(chosen)
                    prewarms = prewarms_of(parts)
    return make_report(
        order,
        conditions,
        course.observations,
        course.failures,
        prewarms,
        interrupted=interrupted,
    )


class _Course:
    """All conversations in all modes, and what came of them."""

    def __init__(
        self, order: Order, parts: Parts, knowledge: dict[str, Collection], progress: Progress
    ) -> None:
        self._modes = order.modes
        self._progress = progress
        self._manner = Manner(
            sampling=sampling_of(parts.settings, order.max_tokens),
            top_k=order.top_k,
            turns=order.turns,
            replies=order.replies,
            words_per_minute=order.words_per_minute,
            think_s=order.think_s,
        )
        self._parts = {
            (mode, name): _parts_of(mode, parts, collection)
            for mode in self._modes
            for name, collection in knowledge.items()
        }
        self.observations: list[Observation] = []
        self.failures: list[Failure] = []

    async def run(self, conversations: Sequence[Conversation]) -> bool:
        """Whether it was interrupted."""
        n_turns = sum(len(conversation.turns[: self._manner.turns]) for conversation in conversations)
        self._progress.begin(n_turns * len(self._modes))
        try:
            await self._warm_up(conversations[0])
            for index, conversation in enumerate(conversations):
                first = index % len(self._modes)
                for mode in (*self._modes[first:], *self._modes[:first]):
                    await self._hold(conversation, mode)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            return True
        return False

    async def _warm_up(self, conversation: Conversation) -> None:
        """What an engine does once is done before anything counts; the cache it leaves is under a salt of its own."""
        opening = Conversation("warm-up", conversation.collection, conversation.turns[:2])
        mode = self._modes[0]
        parts = self._parts[mode, conversation.collection]
        with suppress(Exception):  # what is wrong comes again, and is reported then
            async for _ in hold(opening, mode, parts, self._manner, tenant="evaluation warm-up"):
                pass

    async def _hold(self, conversation: Conversation, mode: Mode) -> None:
        parts = self._parts[mode, conversation.collection]
        turn = 1
        try:
            async for observation in hold(conversation, mode, parts, self._manner):
                self.observations.append(observation)
                turn = observation.turn + 1
                self._progress.turn(observation)
        except Exception as error:  # noqa: BLE001 - hours of measuring do not end with one conversation
            said = f"{type(error).__name__}: {error}"
            self.failures.append(Failure(conversation.id, mode, turn, said))
            self._progress.failed(mode, turn, said, len(conversation.turns[: self._manner.turns]))


def _parts_of(mode: Mode, parts: Parts, collection: Collection) -> Parts:
    searched = replace(parts, store=collection.store, retriever=collection.retriever)
    return parts_with(searched, settings_of(mode, parts.settings))


def _own_settings(settings: Settings, data_dir: Path) -> Settings:
    """The deployment's, with a data folder of its own: no document, ledger or turn of the real one is touched."""
    if uses_starter(settings) and not starter_is_prepared(settings.models_path):
        raise ModelMissing("the starter models are not prepared", next_step="run `firstword models prepare`")
    engine = settings.engine.model_copy(
        update={"model": chat_model(settings), "served_model_name": model_name(settings)}
    )
    embedder = settings.retrieval.embedder
    retrieval = settings.retrieval.model_copy(
        update={
            "sample_knowledge": "",
            "index_snapshot": False,
            "embedder": str(starter_embedder(settings.models_path)) if embedder == STARTER else embedder,
        }
    )
    context = settings.context.model_copy(update={"ledger_snapshot": False, "ledger_url": SecretStr("")})
    prewarm = settings.prewarm.model_copy(update={"enabled": True, "calls_per_minute": 1_000_000})
    return settings.model_copy(
        update={
            "data_dir": data_dir,
            "engine": engine,
            "retrieval": retrieval,
            "context": context,
            "prewarm": prewarm,
        }
    )


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """As the server does when it is ready, see `server/app.py`; what stays frozen at exit, nanobind calls leaked."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _engine_ready(parts: Parts, progress: Progress) -> None:
    """Raises `ConfigError` when the engine's first start fails: it would be tried again for ever."""
    ready = asyncio.ensure_future(parts.engine.ready())
    try:
        while not ready.done():
            if parts.engine.status.phase == "dead":
                raise ConfigError(
                    parts.engine.status.detail,
                    next_step="see why with FIRSTWORD_ENGINE__LOG_LEVEL=INFO, and try `firstword serve`",
                )
            progress.phase(parts.engine.status.detail or "loading engine")
            await asyncio.wait((ready,), timeout=0.5)
    finally:
        ready.cancel()

"""ContextPilot's own part. Runs in its environment, by path, with the standard library and ContextPilot alone.

A job comes as JSON on stdin, the requests that a user of ContextPilot would send go as JSON to stdout, in the order
of serving. Two ways to use it, each after its documentation:

`reorder`, its README's "Accelerating Online Inference": `optimize` builds a system message of the turn's passages,
those first that were sent before. It gives no place to earlier turns, which stand between its two messages here, as
they were said. Of a round of requests, `optimize_batch` of "Accelerating Offline Inference" orders all.

`deduplicate`, its guide "Multi-Turn Conversations": the first turn's passages are reordered; later turns send
only passages that the conversation has not had, and point at the others by their ids. That needs the earlier turns
in the prompt as they were sent. The layout of the user's message is that of its `process_conversation_turn`.

Divergences:
- Ids are integers, one for each passage, since a hint repeats what it is given: with texts, the whole passage.
- A round's first turns are ordered with one `reorder`, and each then registered by its own conversation's `reorder`,
  since a batch takes one conversation id for all.
- A batch is ordered by a new index (the module's `optimize_batch`), never by one in use: there 0.5.0 gives contexts
  back in the order they came in and an order of serving that it pairs them by, so that questions meet passages of
  others. `online` orders a round one request after another with the index in use.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import contextpilot

Turn = dict[str, Any]
Job = dict[str, Any]
Sent = list[dict[str, str]]
"""Messages."""

QUESTION = (
    "With the chat history and the following context, answer the question:\n{context}\nQuestion: {question}\n"
)
RANKING = (
    "Read the documents in this importance ranking: {ranking}\n"
    "Prioritize information from higher-ranked documents.\n\n"
)


class Clock:
    """Time spent in ContextPilot."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - begun


class Replay:
    """The conversations of a job, and which of their turns are served together."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self.system: str = job["system"]
        self.conversations: list[dict[str, Any]] = job["conversations"]
        self.clock = clock
        self.requests: list[dict[str, Any]] = []

    def turn(self, conversation: int, turn: int) -> Turn:
        found: Turn = self.conversations[conversation]["turns"][turn]
        return found

    def name(self, conversation: int) -> str:
        return f"{conversation}-{self.conversations[conversation]['id']}"

    def one_by_one(self) -> Iterator[tuple[int, int]]:
        for conversation, told in enumerate(self.conversations):
            for turn in range(len(told["turns"])):
                yield conversation, turn

    def rounds(self) -> Iterator[list[tuple[int, int]]]:
        """Everyone's first turn, everyone's second..."""
        for turn in range(max(len(told["turns"]) for told in self.conversations)):
            yield [
                (conversation, turn)
                for conversation, told in enumerate(self.conversations)
                if turn < len(told["turns"])
            ]

    def send(self, conversation: int, turn: int, messages: Sent) -> None:
        self.requests.append({"conversation": conversation, "turn": turn, "messages": messages})


class Reordered:
    """Passages in the system message, history as it was said."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._pilot = contextpilot.ContextPilot(use_gpu=False)

    def serve(self, conversation: int, turn: int) -> None:
        asked = self._replay.turn(conversation, turn)
        with self._replay.clock.running():
            messages = self._pilot.optimize(
                [passage["text"] for passage in asked["passages"]],
                asked["question"],
                conversation_id=self._replay.name(conversation),
                system_instruction=self._replay.system,
            )
        self._send(conversation, turn, messages)

    def serve_batch(self, places: list[tuple[int, int]]) -> None:
        asked = [self._replay.turn(*place) for place in places]
        with self._replay.clock.running():
            batch, order = contextpilot.optimize_batch(
                [[passage["text"] for passage in turn["passages"]] for turn in asked],
                [turn["question"] for turn in asked],
                system_instruction=self._replay.system,
            )
        for messages, position in zip(batch, order, strict=True):
            conversation, turn = places[position]
            self._send(conversation, turn, messages)

    def _send(self, conversation: int, turn: int, messages: Sent) -> None:
        asked = self._replay.turn(conversation, turn)
        system, question = messages
        if question["content"] != asked["question"] or any(
            passage["text"] not in system["content"] for passage in asked["passages"]
        ):
            raise ValueError(f"conversation {conversation}, turn {turn}: the prompt is another turn's")
        history = []
        for place in range(turn):
            earlier = self._replay.turn(conversation, place)
            history.append({"role": "user", "content": earlier["question"]})
            history.append({"role": "assistant", "content": earlier["reply"]})
        self._replay.send(conversation, turn, [system, *history, question])


class Deduplicated:
    """What a conversation has had is pointed at; its messages stay as they were sent."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._pilot = contextpilot.ContextPilot(use_gpu=False)
        self._ids: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._histories: dict[int, Sent] = {}

    def serve(self, conversation: int, turn: int) -> None:
        if turn == 0:
            self._first_turn(conversation)
        else:
            self._later_turn(conversation, turn)

    def serve_batch(self, places: list[tuple[int, int]]) -> None:
        if places[0][1] == 0:
            contexts = [self._ids_of(self._replay.turn(*place)) for place in places]
            with self._replay.clock.running():
                _, order = self._pilot.reorder(contexts)
            places = [places[position] for position in order]
        for place in places:
            self.serve(*place)

    def _first_turn(self, conversation: int) -> None:
        asked = self._replay.turn(conversation, 0)
        ids = self._ids_of(asked)
        with self._replay.clock.running():
            (reordered,), _ = self._pilot.reorder([ids], conversation_id=self._replay.name(conversation))
        if sorted(reordered) != sorted(ids):
            raise ValueError(f"conversation {conversation}: reordered to other passages")
        ranking = RANKING.format(ranking=" > ".join(f"[Doc {id_}]" for id_ in ids))
        self._send(conversation, 0, self._passages(reordered) + ranking)

    def _later_turn(self, conversation: int, turn: int) -> None:
        ids = self._ids_of(self._replay.turn(conversation, turn))
        with self._replay.clock.running():
            (found,) = self._pilot.deduplicate([ids], conversation_id=self._replay.name(conversation))
        if sorted(found["new_docs"] + found["overlapping_docs"]) != sorted(ids):
            raise ValueError(f"conversation {conversation}, turn {turn}: deduplicated to other passages")
        hints = "".join(f"{hint}\n\n" for hint in found["reference_hints"])
        self._send(conversation, turn, self._passages(found["new_docs"]) + hints)

    def _send(self, conversation: int, turn: int, context: str) -> None:
        asked = self._replay.turn(conversation, turn)
        history = self._histories.setdefault(
            conversation, [{"role": "system", "content": self._replay.system}]
        )
        history.append(
            {"role": "user", "content": QUESTION.format(context=context, question=asked["question"])}
        )
        self._replay.send(conversation, turn, list(history))
        history.append({"role": "assistant", "content": asked["reply"]})

    def _passages(self, ids: list[int]) -> str:
        return "".join(f"[Doc {id_}]: {self._texts[id_]}\n\n" for id_ in ids)

    def _ids_of(self, asked: Turn) -> list[int]:
        found = []
        for passage in asked["passages"]:
            id_ = self._ids.setdefault(passage["id"], len(self._ids))
            self._texts[id_] = passage["text"]
            found.append(id_)
        return found


WAYS: dict[str, Callable[[Replay], Reordered | Deduplicated]] = {
    "reorder": Reordered,
    "deduplicate": Deduplicated,
}


def main() -> None:
    job: Job = json.load(sys.stdin)
    # ContextPilot reports on stdout, which is for the answer.
    with contextlib.redirect_stdout(sys.stderr):
        answer = serve(job)
    json.dump(answer, sys.stdout)


def serve(job: Job) -> dict[str, Any]:
    replay = Replay(job, Clock())
    way = WAYS[job["way"]](replay)
    match job["serving"]:
        case "one by one":
            for place in replay.one_by_one():
                way.serve(*place)
        case "online":
            for places in replay.rounds():
                for place in places:
                    way.serve(*place)
        case "batch":
            for places in replay.rounds():
                way.serve_batch(places)
        case other:
            raise ValueError(f"no such serving: {other}")
    version = importlib.metadata.version("contextpilot")
    return {"version": version, "spent_s": replay.clock.spent_s, "requests": replay.requests}


if __name__ == "__main__":
    main()

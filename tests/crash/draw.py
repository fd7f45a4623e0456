"""Random operations that a store in a given state can do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from random import Random

from crash.model import Place, State
from crash.operations import Operation, model_after, tenant_of
from retrieval.types import DEFAULT_STORE

KINDS = {
    "open": 2,
    "ingest": 6,
    "ingest large": 3,
    "update": 6,
    "delete": 6,
    "upload": 2,
    "delete file": 2,
    "create store": 1,
    "delete store": 2,
    "attach": 2,
    "finish": 4,
    "settle": 1,
    "cancel": 1,
    "detach": 2,
    "modify": 2,
    "prune": 3,
    "checkpoint": 3,
    "reindex begin": 1,
    "reindex put": 2,
    "reindex finish": 2,
    "snapshot": 6,
    "compaction": 6,
    "backup": 5,
}
"""How often each is drawn, relative to the others."""

_MOST_DOCUMENTS, _MOST_STORES, _MOST_FILES = 24, 5, 10
_LARGE = "large"
_WORDS = ["river", "stone", "light", "winter", "harbour", "copper", "garden", "signal", "paper", "window"]
_GATHERED_AT_ONCE = 24


class Draw:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._numbers = count(1)

    def any_of(self, state: State) -> Operation:
        """Large ones seldom: they take as long as all others together."""
        weights = {kind: weight for kind, weight in KINDS.items() if kind not in ("open", "ingest large")}
        while True:
            kind = self._random.choices(list(weights), list(weights.values()))[0]
            if operation := self.of_kind(kind, state):
                return operation

    def towards(self, kind: str, state: State) -> Operation:
        """This kind, or an operation after which it can be done."""
        if operation := self.of_kind(kind, state):
            return operation
        before = {
            "update": "ingest", "delete": "ingest", "modify": "ingest", "prune": "ingest",
            "delete file": "upload", "delete store": "create store", "attach": "upload", "finish": "attach",
            "settle": "attach", "cancel": "attach", "detach": "attach", "create store": "delete store",
            "upload": "delete file", "ingest": "delete", "reindex put": "ingest" if state.next_model else "reindex begin",
            "reindex finish": "reindex put" if state.next_model else "reindex begin",
        }  # fmt: skip
        return self.towards(before[kind], state)

    def of_kind(self, kind: str, state: State) -> Operation | None:
        random = self._random
        own = [place for place, held in state.documents.items() if not held.file and place[1] != _LARGE]
        match kind:
            case "ingest":
                if len(own) >= _MOST_DOCUMENTS:
                    return None
                return Operation(
                    kind, self._store(state), self._name("d"), self._texts(), 1, self._attributes()
                )
            case "ingest large":
                # More than SQLite's cache holds: written to the log before it is committed.
                return Operation(kind, DEFAULT_STORE, _LARGE, self._new_texts(random.randint(60, 80)), 2_500)
            case "update":
                return self._update(self._one(own), state)
            case "delete":
                place = self._one(list(state.documents))
                return place and Operation(kind, *place)
            case "modify" | "prune":
                place = self._one(list(state.documents))
                return place and Operation(kind, *place, attributes=self._attributes())
            case "upload":
                if len(state.files) >= _MOST_FILES:
                    return None
                repeat = random.choice([1, 1, 1, 2_000])
                return Operation(
                    kind, name=self._name(random.choice("ab")), texts=self._texts(), repeat=repeat
                )
            case "delete file":
                name = self._one(list(state.files))
                return name and Operation(kind, name=name)
            case "create store":
                if len(state.stores) >= _MOST_STORES:
                    return None
                return Operation(kind, name=self._name(random.choice("ab")))
            case "delete store":
                name = self._one([name for name in state.stores if name != DEFAULT_STORE])
                return name and Operation(kind, name=name)
            case "attach":
                place = self._one(_attachable(state))
                attributes = random.choice([{}, self._attributes()])
                return place and Operation(kind, *place, attributes=attributes, limit=1)
            case "finish" | "settle" | "cancel":
                waiting = [place for place, each in state.attached.items() if each.status == "in_progress"]
                place = self._one(waiting)
                return place and Operation(kind, *place, texts=self._texts())
            case "detach":
                place = self._one(list(state.attached))
                return place and Operation(kind, *place)
            case "reindex begin":
                return Operation(kind, name=state.next_model or model_after(state.model))
            case "reindex put":
                if not state.n_missing or not state.next_model:
                    return None
                return Operation(kind, name=state.next_model, limit=_GATHERED_AT_ONCE)
            case "reindex finish":
                if state.n_missing or not state.next_model:
                    return None
                return Operation(kind, name=state.next_model)
            case "backup" | "snapshot" | "compaction":
                # What changes the index while it is read is what they are for.
                beside = self.of_kind(random.choice(["ingest", "update", "delete", "modify"]), state)
                return Operation(kind, beside=beside if kind == "backup" else None)
        return Operation(kind)

    def _update(self, place: Place | None, state: State) -> Operation | None:
        """Parts of it stay, and pass one another: with the same words the same texts come again."""
        if place is None:
            return None
        store, name = place
        return Operation("update", store, name, self._texts(), 1, self._attributes())

    def _texts(self, n: int | None = None) -> tuple[str, ...]:
        """One to twelve, of few words: many documents share them."""
        random = self._random
        n = n if n is not None else random.choice([1, 2, 3, 5, 8, 12])
        return tuple(f"{random.choice(_WORDS)} {random.choice(_WORDS)} " for _ in range(n))

    def _new_texts(self, n: int) -> tuple[str, ...]:
        return tuple(f"{text}{next(self._numbers)} " for text in self._texts(n))

    def _attributes(self) -> dict[str, object]:
        return {"n": self._random.randint(0, 9), "kind": self._random.choice(_WORDS)}

    def _name(self, first: str) -> str:
        return f"{first}-{next(self._numbers)}"

    def _store(self, state: State) -> str:
        return self._random.choice(sorted(state.stores))

    def _one(self, among: Sequence) -> object:
        return self._random.choice(sorted(among)) if among else None


def _attachable(state: State) -> list[Place]:
    """A file goes into its tenant's stores and into the deployment's."""
    return [
        (store, name)
        for store in state.stores
        for name in state.files
        if store == DEFAULT_STORE or tenant_of(store) == tenant_of(name)
    ]

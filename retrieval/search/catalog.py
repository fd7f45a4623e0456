"""Which documents there are, in which vector store and with which attributes: what a scope is resolved with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np

from retrieval.filters import canonical
from retrieval.types import Changes, Entry, Scope, Selection

_MOST_SELECTIONS = 64
_GROWTH = 1.25


class Catalog:
    """The documents of a view. Selections of recent scopes are kept, and follow the changes.

    A change makes new selection objects only for the scopes that it concerns; indexes keep what they derived
    from the others.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[int, Entry] = {entry.number: entry for entry in entries}
        self._selections: OrderedDict[str, tuple[Scope, Selection]] = OrderedDict()
        self._numbers_of: dict[str, set[int]] = {}
        for entry in self._entries.values():
            self._numbers_of.setdefault(entry.store_id, set()).add(entry.number)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def store_ids(self) -> Mapping[str, int]:
        """How many documents each store has."""
        return {store_id: len(numbers) for store_id, numbers in self._numbers_of.items()}

    def entry(self, number: int) -> Entry | None:
        return self._entries.get(number)

    def select(self, scope: Scope) -> Selection:
        name = scope_name(scope)
        found = self._selections.get(name)
        if found is None:
            scope = normal(scope)
            found = self._selections[name] = scope, self._selection(scope)
            if len(self._selections) > _MOST_SELECTIONS:
                self._selections.popitem(last=False)
        else:
            self._selections.move_to_end(name)
        return found[1]

    def apply(self, changes: Changes) -> None:
        changed: list[tuple[Entry | None, Entry | None]] = []
        for number in changes.gone_documents:
            if before := self._entries.pop(number, None):
                self._numbers_of[before.store_id].discard(number)
                changed.append((before, None))
        for entry in changes.entries:
            before = self._entries.get(entry.number)
            self._entries[entry.number] = entry
            self._numbers_of.setdefault(entry.store_id, set()).add(entry.number)
            changed.append((before, entry))
        if changed:
            for name, (scope, selection) in self._selections.items():
                self._selections[name] = scope, _followed(scope, selection, changed)

    def _selection(self, scope: Scope) -> Selection:
        numbers = [number for store_id in scope.store_ids for number in self._numbers_of.get(store_id, ())]
        if scope.filter is not None:
            holds = scope.filter.matches
            numbers = [number for number in numbers if holds(self._entries[number].attributes)]
        documents = np.zeros(max(numbers, default=-1) + 1, dtype=np.bool_)
        documents[numbers] = True
        return Selection(scope.store_ids, documents, every_document=scope.filter is None)


def normal(scope: Scope) -> Scope:
    """The same for scopes that mean the same."""
    return Scope(tuple(sorted(set(scope.store_ids))), scope.filter)


def scope_name(scope: Scope) -> str:
    """A text that is the same for scopes that mean the same, and for no others."""
    scope = normal(scope)
    stores = ",".join(scope.store_ids)
    return f"{stores}|{canonical(scope.filter)}" if scope.filter is not None else stores


def _followed(
    scope: Scope, selection: Selection, changed: list[tuple[Entry | None, Entry | None]]
) -> Selection:
    flips = {}
    for before, after in changed:
        entry = after or before
        if entry is not None and entry.store_id in scope.store_ids:
            flips[entry.number] = after is not None and (
                scope.filter is None or scope.filter.matches(after.attributes)
            )
    held = selection.documents
    flips = {
        number: selected
        for number, selected in flips.items()
        if selected != (number < len(held) and bool(held[number]))
    }
    if not flips:
        return selection
    highest = max((number for number, selected in flips.items() if selected), default=-1)
    documents = np.zeros(
        max(len(held), int((highest + 1) * _GROWTH) if highest >= len(held) else 0), np.bool_
    )
    documents[: len(held)] = held
    for number, selected in flips.items():
        if number < len(documents):
            documents[number] = selected
    return Selection(selection.store_ids, documents, selection.every_document)

"""The catalog's selections against a model that selects anew from all documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retrieval.filters import Comparison
from retrieval.search.catalog import Catalog
from retrieval.types import Changes, Entry, Rows, Scope, Selection

NO_ROWS = Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 1), np.float32), ())
SCOPES = [
    Scope(("a",)),
    Scope(("b",)),
    Scope(("b", "a")),
    Scope(("nowhere",)),
    Scope(()),
    Scope(("a",), Comparison("eq", "kind", 1.0)),
    Scope(("a", "b"), Comparison("ne", "kind", True)),
]


@dataclass
class Model:
    entries: dict[int, Entry] = field(default_factory=dict)
    last: int = 0

    def expected(self, scope: Scope) -> set[int]:
        return {
            entry.number
            for entry in self.entries.values()
            if entry.store_id in scope.store_ids
            and (scope.filter is None or scope.filter.matches(entry.attributes))
        }


def selected(selection: Selection) -> set[int]:
    return set(np.flatnonzero(selection.documents).tolist())


class CatalogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.catalog = Catalog()
        self.before = [(self.catalog.select(scope), set[int]()) for scope in SCOPES]

    @rule(
        stores=st.lists(st.sampled_from("ab"), max_size=4),
        kinds=st.lists(st.sampled_from([1.0, True, "x"]), min_size=4, max_size=4),
        changed=st.lists(st.integers(0, 40), max_size=3),
        gone=st.lists(st.integers(0, 40), max_size=3),
        skipped=st.integers(0, 5),
    )
    def change(
        self,
        stores: list[str],
        kinds: list[float | bool | str],
        changed: list[int],
        gone: list[int],
        skipped: int,
    ) -> None:
        held = sorted(self.model.entries)
        gone = [held[at] for at in gone if at < len(held)]
        entries = {
            held[at]: Entry(held[at], self.model.entries[held[at]].store_id, {"kind": kinds[0]})
            for at in changed
            if at < len(held) and held[at] not in gone
        }
        for store_id, kind in zip(stores, kinds, strict=False):
            self.model.last += 1 + skipped
            entries[self.model.last] = Entry(self.model.last, store_id, {"kind": kind})
        for number in gone:
            self.model.entries.pop(number, None)
        self.model.entries |= entries
        self.catalog.apply(Changes(1, tuple(entries.values()), tuple(gone), (), NO_ROWS))

    @rule()
    def forget_selections(self) -> None:
        """As if it had been made anew from the store."""
        self.catalog = Catalog(self.model.entries.values())
        self.before = [(self.catalog.select(scope), self.model.expected(scope)) for scope in SCOPES]

    @invariant()
    def selections_are_what_the_documents_say(self) -> None:
        assert len(self.catalog) == len(self.model.entries)
        for at, scope in enumerate(SCOPES):
            selection, expected = self.catalog.select(scope), self.model.expected(scope)
            assert selected(selection) == expected
            assert selection.every_document == (scope.filter is None)
            before, held = self.before[at]
            assert (selection is before) == (expected == held), "kept where nothing changed, and only there"
            assert selected(before) == held, "what a search holds never changes"
            self.before[at] = selection, expected

    @invariant()
    def the_order_of_stores_does_not_matter(self) -> None:
        assert self.catalog.select(Scope(("a", "b", "a"))) is self.catalog.select(Scope(("b", "a")))


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_selections_beyond_the_most_are_made_anew_and_equal() -> None:
    catalog = Catalog([Entry(number, "a", {"n": float(number)}) for number in range(100)])
    scopes = [Scope(("a",), Comparison("eq", "n", float(number))) for number in range(100)]
    for scope in scopes * 2:
        assert selected(catalog.select(scope)) == {int(scope.filter.value)}

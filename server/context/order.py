"""The order in which a first turn's passages stand, so that conversations share the prompt's beginning.

The engine reuses a prompt only from its beginning. Behind one system message two first turns share exactly their
common leading passages, so a passage that many conversations want is worth the most where they all put it: first.

What was served lately is a trie for each root: an order is a path, and a path is what the prefix cache holds. The
nearest earlier work is FP-growth (Han et al., 2000), which sorts each set by frequency so that the sets share a
trie's branches. Sorting alone shares less than relevance does: frequencies change, and with them the order of a
question that is asked again. So a new set follows the paths that exist; only its rest is sorted.

Which orders are allowed: a passage stays behind every one that is ahead of it by relevance and differs in score by
more than the margin. Where scores fall along the list this is a semiorder (Luce, 1956), and what `arrange` returns is
a linear extension of it: with margin 0 equal scores alone may change places, with margin 2 all may.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import lt

_FRESH_TURNS = 32
"""A path unused for so many first turns is trusted half as much to be in the cache still. Shorter suits small caches,
longer suits large ones; `python -m bench.order` tells what it comes to."""

_MOST_STEPS = 40
"""Nodes that one call looks at, which bounds its time. The best paths are looked at first."""


class SharedOrder:
    """Not thread-safe: for the event loop. At most `max_roots` tenants and scopes are remembered, each with its last
    `window` first turns; the root that served nothing for the longest time is forgotten.
    """

    def __init__(self, window: int, margin: float, max_roots: int = 1024) -> None:
        self._window = window
        self._margin = margin
        self._max_roots = max_roots
        self._roots: OrderedDict[bytes, _Served] = OrderedDict()

    def arrange(self, root: bytes, keys: Sequence[int], scores: Sequence[float]) -> list[int]:
        """Positions into `keys` (best first) in the order they are to stand. `root` separates tenants and scopes.

        The served path that is likeliest to be in the cache comes first, then what the window holds most often, then
        the more relevant. Has no side effect.
        """
        served = self._roots.get(root)
        if served is None or len(keys) < 2:
            return list(range(len(keys)))
        return _Arrangement(served, keys, _held_back(scores, self._margin)).order()

    def served(self, root: bytes, keys: Sequence[int]) -> None:
        """This order was prefilled: it is what later first turns may share."""
        if not keys:
            return
        served = self._roots.get(root)
        if served is None:
            served = self._roots[root] = _Served()
            if len(self._roots) > self._max_roots:
                self._roots.popitem(last=False)
        self._roots.move_to_end(root)
        served.add(tuple(keys))
        if len(served.orders) > self._window:
            served.drop_oldest()


@dataclass(slots=True)
class _Node:
    """A path of passages, from the prompt's first one to this."""

    count: int = 0
    """Orders in the window that begin so."""
    last: int = 0
    """The turn that did so last, as `_Served.turn` counts them."""
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(slots=True)
class _Served:
    """One root's window: its orders, oldest first, and what follows from them."""

    turn: int = 0
    orders: deque[tuple[int, ...]] = field(default_factory=deque)
    trie: _Node = field(default_factory=_Node)
    frequency: Counter[int] = field(default_factory=Counter)

    def add(self, order: tuple[int, ...]) -> None:
        self.turn += 1
        self.orders.append(order)
        self.frequency.update(order)
        node = self.trie
        for key in order:
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node()
            child.count += 1
            child.last = self.turn
            node = child

    def drop_oldest(self) -> None:
        """`last` needs no care: a path that stays was served by a later turn."""
        order = self.orders.popleft()
        for key in order:
            self.frequency[key] -= 1
            if not self.frequency[key]:
                del self.frequency[key]
        node = self.trie
        for key in order:
            child = node.children[key]
            child.count -= 1
            if not child.count:
                del node.children[key]  # and with it all that only this order held
                return
            node = child


class _Arrangement:
    """One call's search; a set of positions is an integer with a bit for each."""

    def __init__(self, served: _Served, keys: Sequence[int], held_back: Sequence[int]) -> None:
        self._served = served
        self._keys = keys
        self._held_back = held_back
        self._position = {key: at for at, key in enumerate(keys)}
        self._steps_left = _MOST_STEPS
        self._best: tuple[float, int] = (0.0, 0)
        self._best_path: list[int] = []

    def order(self) -> list[int]:
        everything = (1 << len(self._keys)) - 1
        self._follow(self._served.trie, [], everything, 0.0, 0)
        path = self._best_path
        return path + self._by_frequency(everything & ~sum(1 << at for at in path))

    def _follow(self, node: _Node, path: list[int], left: int, value: float, count: int) -> None:
        """Look for the path of the highest value: what each of its passages is trusted to be in the cache.

        No child is fresher than its parent, so that what a branch can still reach is known before it is entered.
        """
        if (value, count) > self._best:
            self._best, self._best_path = (value, count), path
        n_left = len(self._keys) - len(path)
        for trust, times, at, child in self._next(node, left):
            if self._steps_left <= 0 or value + trust * n_left < self._best[0]:
                return
            self._steps_left -= 1
            self._follow(child, [*path, at], left & ~(1 << at), value + trust, count + times)

    def _next(self, node: _Node, left: int) -> list[tuple[float, int, int, _Node]]:
        """The children that may stand next, the most trusted first; ties: more often served, then relevance."""
        children, found = node.children, []
        few = self._position if len(self._position) < len(children) else children
        for key in few:
            child, at = children.get(key), self._position.get(key)
            if child is None or at is None or not left >> at & 1 or self._held_back[at] & left:
                continue
            trust = _FRESH_TURNS / (_FRESH_TURNS + self._served.turn - child.last)
            found.append((trust, child.count, at, child))
        if len(found) > 1:
            found.sort(key=lambda step: (-step[0], -step[1], step[2]))
        return found

    def _by_frequency(self, left: int) -> list[int]:
        frequency, keys = self._served.frequency, self._keys
        rest = [(-frequency.get(key, 0), at) for at, key in enumerate(keys) if left >> at & 1]
        rest.sort()
        waiting = [at for _, at in rest]
        order = []
        while waiting:
            for at in waiting:
                if not self._held_back[at] & left:
                    break
            waiting.remove(at)
            left &= ~(1 << at)
            order.append(at)
        return order


def _held_back(scores: Sequence[float], margin: float) -> list[int]:
    """For each position the set of those that must stand ahead of it."""
    if any(map(lt, scores, scores[1:])):  # something other than the scores made the order
        return [
            sum(1 << other for other in range(at) if abs(scores[other] - score) > margin)
            for at, score in enumerate(scores)
        ]
    held_back = []
    ahead = n_ahead = 0
    for score in scores:
        while scores[n_ahead] - score > margin:
            ahead |= 1 << n_ahead
            n_ahead += 1
        held_back.append(ahead)
    return held_back

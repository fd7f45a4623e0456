"""`python -m bench.order DATA`: how many passage tokens of first turns the prefix cache holds, by order of passages.

DATA is a folder with `passages.jsonl` (`id`, `text`, `collection`) and `conversations.jsonl` (`collection`, `turns`
with `user`). Nothing is generated: MiniLM retrieves, the chat model's tokenizer gives the lengths, and the engine's
prefix cache is the simulated engine's model of it. About three minutes; the embeddings are kept in a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.conditions import conditions
from bench.report import Lines, Sheet, keep, open_console, show
from retrieval.embed.spec import SentenceTransformerEmbedder
from server.context.order import SharedOrder
from server.context.template import ChatTemplate, Message
from server.engine.prefix_cache import PrefixCache
from server.settings import Settings, load_settings
from server.starter import starter_chat_model, starter_embedder

FIRST_TURNS = 500
BLOCK_TOKENS = 32
UNBOUNDED = 1_000_000
CACHE_BLOCKS = (500, 1_000, 2_000, 4_000, 8_000, UNBOUNDED)
MARGINS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 2.0)
TIMED_K = (4, 8, 16)
WORKLOADS = {
    "a": "the conversations' first questions",
    "b": "any question of the conversation",
    "c": "as b, the least asked first",
}
"""The conversation is drawn by Zipf's law (s = 1) in each."""


@dataclass(frozen=True, slots=True)
class Question:
    """A first turn's question, with what it retrieves, best first."""

    text: str
    keys: tuple[int, ...]
    scores: tuple[float, ...]


class Policy(Protocol):
    def arrange(self, root: bytes, keys: Sequence[int], scores: Sequence[float]) -> list[int]: ...

    def served(self, root: bytes, keys: Sequence[int]) -> None: ...


class Relevance:
    def arrange(self, root: bytes, keys: Sequence[int], scores: Sequence[float]) -> list[int]:
        return list(range(len(keys)))

    def served(self, root: bytes, keys: Sequence[int]) -> None:
        pass


class Shuffled(Relevance):
    def __init__(self) -> None:
        self._random = random.Random(0)

    def arrange(self, root: bytes, keys: Sequence[int], scores: Sequence[float]) -> list[int]:
        return self._random.sample(range(len(keys)), len(keys))


class MostServedChild(Relevance):
    """The plain greedy way: at each level the child that was served most often, however long ago; no window."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._served: Counter[tuple[int, ...]] = Counter()
        self._frequency: Counter[int] = Counter()

    def arrange(self, root: bytes, keys: Sequence[int], scores: Sequence[float]) -> list[int]:
        left, order, path = list(range(len(keys))), [], ()
        while left:
            allowed = [at for at in left if scores[left[0]] - scores[at] <= self._margin]
            at = max(allowed, key=lambda at: (self._served[*path, keys[at]], self._frequency[keys[at]], -at))
            left.remove(at)
            order.append(at)
            path = (*path, keys[at])
        return order

    def served(self, root: bytes, keys: Sequence[int]) -> None:
        self._frequency.update(keys)
        self._served.update(tuple(keys[:n]) for n in range(1, len(keys) + 1))


class Corpus:
    """The data set: questions with their nearest passages, and prompts as tokens."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self._passages = _read(data / "passages.jsonl")
        self._conversations = _read(data / "conversations.jsonl")
        self._vectors, self._asked = self._embedded(settings)
        self._template = ChatTemplate(str(starter_chat_model(settings.models_path)))
        prompt = settings.prompt
        system = Message("system", prompt.system)
        prompts = [
            self._template.render([system, Message("user", prompt.passages_header + end)]) for end in "ab"
        ]
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*prompts, strict=False))
        self.opening = [token for token, _ in same]
        self.line_tokens = cache(self._line_tokens)

    def _line_tokens(self, key: int, number: int) -> list[int]:
        return self._template.encode(f"\n[{number}] {self._passages[key]['text']}")

    def question_tokens(self, text: str) -> list[int]:
        return self._template.encode("\n\nQuestion: " + text)

    def _embedded(self, settings: Settings) -> tuple[Any, Any]:
        passages = [passage["text"] for passage in self._passages]
        asked = [turn["user"] for conversation in self._conversations for turn in conversation["turns"]]
        name = hashlib.sha256(json.dumps([passages, asked]).encode()).hexdigest()[:16]
        kept = Path(tempfile.gettempdir()) / f"firstword-bench-order-{name}.npz"
        if not kept.exists():
            embedder = SentenceTransformerEmbedder(str(starter_embedder(settings.models_path)))
            np.savez(kept, passages=embedder.embed(passages), asked=embedder.embed(asked))
        with np.load(kept) as vectors:
            return vectors["passages"], vectors["asked"]

    def topics(self, top_k: int) -> list[list[Question]]:
        """Of each conversation its questions; each is asked against the conversation's own collection."""
        collections = np.array([passage["collection"] for passage in self._passages])
        rows = iter(self._asked)
        topics = []
        for conversation in self._conversations:
            own = np.flatnonzero(collections == conversation["collection"])
            topic = []
            for turn in conversation["turns"]:
                scores = self._vectors[own] @ next(rows)
                best = np.argsort(-scores, kind="stable")[:top_k]
                topic.append(Question(turn["user"], tuple(own[best].tolist()), tuple(scores[best].tolist())))
            topics.append(topic)
        return topics


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def drawn(workload: str, topics: Sequence[Sequence[Question]], seed: int) -> list[Question]:
    """The first turns of one run."""
    draw = random.Random(seed)
    ranked = draw.sample(topics, len(topics))
    asked: Counter[int] = Counter()
    turns = []
    for topic in draw.choices(ranked, [1 / rank for rank in range(1, len(ranked) + 1)], k=FIRST_TURNS):
        if workload == "a":
            question = topic[0]
        else:
            least = min(asked[id(one)] for one in topic)
            question = draw.choice([one for one in topic if workload == "b" or asked[id(one)] == least])
        asked[id(question)] += 1
        turns.append(question)
    return turns


@dataclass(slots=True)
class Tally:
    """Passage tokens; new are those of questions that were not asked before, word for word."""

    tokens: int = 0
    cached: int = 0
    new_tokens: int = 0
    new_cached: int = 0
    swapped: int = 0
    pairs: int = 0
    """Of passages; swapped are those that do not stand by relevance."""
    best_first: int = 0
    turns: int = 0

    def add(self, tokens: int, cached: int, new: bool, order: Sequence[int]) -> None:
        self.tokens += tokens
        self.cached += cached
        self.new_tokens += tokens if new else 0
        self.new_cached += cached if new else 0
        self.swapped += sum(one > other for one, other in itertools.combinations(order, 2))
        self.pairs += len(order) * (len(order) - 1) // 2
        self.best_first += order[0] == 0
        self.turns += 1


class Bench:
    def __init__(self, corpus: Corpus, top_k: int, seeds: int, window: int, margin: float) -> None:
        self._corpus = corpus
        self._topics = corpus.topics(top_k)
        self._seeds = range(seeds)
        self._window, self._margin = window, margin
        self._chain = cache(self._chain_of)
        self._common = cache(self._common_tokens)

    def tally(self, workload: str, make: Callable[[], Policy], n_blocks: int = UNBOUNDED) -> Tally:
        tally = Tally()
        for seed in self._seeds:
            blocks, policy, asked = PrefixCache(n_blocks, BLOCK_TOKENS), make(), set()
            for question in drawn(workload, self._topics, seed):
                order = policy.arrange(b"", question.keys, question.scores)
                keys = tuple(question.keys[at] for at in order)
                chain, n_prompt, n_passages = self._chain(keys, question.text)
                matched = blocks.match(chain, n_prompt) - len(self._corpus.opening)
                tally.add(n_passages, min(max(matched, 0), n_passages), question.text not in asked, order)
                blocks.hold(chain)
                blocks.release(chain)
                policy.served(b"", keys)
                asked.add(question.text)
        return tally

    def shared(self, margin: float | None = None) -> SharedOrder:
        return SharedOrder(self._window, self._margin if margin is None else margin)

    def greedy(self) -> MostServedChild:
        return MostServedChild(self._margin)

    def _chain_of(self, keys: tuple[int, ...], text: str) -> tuple[list[int], int, int]:
        lines = [self._corpus.line_tokens(key, at) for at, key in enumerate(keys, start=1)]
        passages = list(itertools.chain.from_iterable(lines))
        prompt = self._corpus.opening + passages + self._corpus.question_tokens(text)
        return PrefixCache(0, BLOCK_TOKENS).chain(prompt, ""), len(prompt), len(passages)

    def bound(self, workload: str, margin: float) -> Tally:
        """What no order can exceed: each turn shares the most that it could with any one turn ahead of it."""
        tally = Tally()
        for seed in self._seeds:
            asked: dict[str, Question] = {}
            for question in drawn(workload, self._topics, seed):
                n_passages = self._chain(question.keys, question.text)[2]
                new = question.text not in asked
                best = max((self._common(question, other, margin) for other in asked.values()), default=0)
                tally.add(n_passages, min(best, n_passages), new, range(len(question.keys)))
                asked[question.text] = question
        return tally

    def _common_tokens(self, one: Question, other: Question, margin: float) -> int:
        """Of the longest beginning that both could have. What may stand next in both still may after another."""
        shared: list[int] = []
        while found := _allowed(one, shared, margin) & _allowed(other, shared, margin):
            shared.append(min(found))
        opening = len(self._corpus.opening)
        tokens = opening + sum(
            len(self._corpus.line_tokens(key, at)) for at, key in enumerate(shared, start=1)
        )
        if one.text != other.text and set(shared) == set(one.keys):
            tokens += BLOCK_TOKENS  # the block may begin alike with the question
        return max(tokens // BLOCK_TOKENS * BLOCK_TOKENS - opening, 0) if one.text != other.text else tokens

    def arrange_us(self, top_k: int) -> Iterator[float]:
        """CPU time of each call with a full window; the least of three, since a call changes nothing."""
        topics = self._corpus.topics(top_k)
        policy = self.shared()
        for seed in (0, 1, 2, 3):
            for question in drawn("b", topics, seed):
                took = []
                for _ in range(3):
                    began = time.thread_time()
                    order = policy.arrange(b"", question.keys, question.scores)
                    took.append((time.thread_time() - began) * 1e6)
                policy.served(b"", [question.keys[at] for at in order])
                if seed > 1:
                    yield min(took)


def _allowed(question: Question, placed: Sequence[int], margin: float) -> set[int]:
    left = [
        (key, score) for key, score in zip(question.keys, question.scores, strict=True) if key not in placed
    ]
    return {key for key, score in left if left[0][1] - score <= margin}


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}×" if other else "–"


def ways_sheet(bench: Bench, margin: float) -> Sheet:
    """Without limit to the cache."""
    ways: dict[str, Callable[[], Policy]] = {
        "relevance": Relevance,
        "random": Shuffled,
        "most served child": bench.greedy,
        "shared": bench.shared,
    }
    lines: Lines = []
    for name, told in WORKLOADS.items():
        base = bench.tally(name, Relevance)
        found = {way: bench.tally(name, make) for way, make in ways.items()}
        found |= {
            "bound at this margin": bench.bound(name, margin),
            "bound of any order": bench.bound(name, 2.0),
        }
        for way, tally in found.items():
            of_all = f"{tally.cached / tally.tokens:.1%}", _times(tally.cached, base.cached)
            of_new = f"{tally.new_cached / tally.new_tokens:.1%}", _times(tally.new_cached, base.new_cached)
            lines.append((f"{name}: {told}" if way == "relevance" else "", way, *of_all, *of_new))
    columns = ("workload", "order", "cached", "to relevance", "of new questions", "to relevance")
    return Sheet("passage tokens from an unbounded cache", columns, lines)


def cache_sheet(bench: Bench) -> Sheet:
    lines: Lines = []
    for name in WORKLOADS:
        for n_blocks in CACHE_BLOCKS:
            ways = (Relevance, bench.greedy, bench.shared)
            base, greedy, shared = (bench.tally(name, make, n_blocks) for make in ways)
            size = "unbounded" if n_blocks == UNBOUNDED else f"{n_blocks * BLOCK_TOKENS:,}"
            ratios = [_times(tally.cached, base.cached) for tally in (greedy, shared)]
            new = _times(shared.new_cached, base.new_cached)
            lines.append((name, size, f"{base.cached / base.tokens:.1%}", *ratios, new))
    columns = (
        "workload",
        "cache tokens",
        "relevance",
        "most served child",
        "shared",
        "shared, new questions",
    )
    return Sheet("passage tokens from caches of several sizes", columns, lines)


def margin_sheet(bench: Bench) -> Sheet:
    lines: Lines = []
    for name in WORKLOADS:
        base, small = bench.tally(name, Relevance), bench.tally(name, Relevance, CACHE_BLOCKS[1])
        for margin in MARGINS:
            make = partial(bench.shared, margin)
            tally, tight = bench.tally(name, make), bench.tally(name, make, CACHE_BLOCKS[1])
            ratios = _times(tally.cached, base.cached), _times(tally.new_cached, base.new_cached)
            moved = f"{tally.swapped / tally.pairs:.1%}", f"{tally.best_first / tally.turns:.1%}"
            lines.append((name, f"{margin:g}", *ratios, _times(tight.cached, small.cached), *moved))
    small_tokens = f"{CACHE_BLOCKS[1] * BLOCK_TOKENS:,} tokens"
    columns = (
        "workload",
        "margin",
        "unbounded",
        "new questions",
        small_tokens,
        "pairs swapped",
        "best stands first",
    )
    return Sheet("shared order to relevance, by margin", columns, lines)


def time_sheet(bench: Bench) -> Sheet:
    lines: Lines = []
    for top_k in TIMED_K:
        p50, p99 = np.percentile(list(bench.arrange_us(top_k)), [50, 99])
        lines.append((str(top_k), f"{p50:.0f}", f"{p99:.0f}"))
    return Sheet("CPU time of `arrange`, window full", ("passages", "p50 µs", "p99 µs"), lines)


def main() -> None:
    settings = load_settings()
    context = settings.context
    parser = argparse.ArgumentParser(prog="bench.order", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with passages.jsonl and conversations.jsonl")
    parser.add_argument("--top-k", type=int, default=4, help="passages of a first turn (default: 4)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of each workload (default: 5)")
    parser.add_argument("--margin", type=float, default=context.order_margin)
    arguments = parser.parse_args()
    console = open_console()
    before = conditions() | {name: value for name, value in vars(arguments).items() if name != "data"}
    bench = Bench(
        Corpus(arguments.data, settings),
        arguments.top_k,
        arguments.seeds,
        context.order_window,
        arguments.margin,
    )
    found = [ways_sheet(bench, arguments.margin), cache_sheet(bench), margin_sheet(bench), time_sheet(bench)]
    show(console, found, before)
    keep("order", found, before)


if __name__ == "__main__":
    main()

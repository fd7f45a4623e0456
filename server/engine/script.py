"""What the simulated engine says: one reply, as the tokens of a real tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

from server.engine.protocol import (
    Delta,
    FinishReason,
    GenerateRequest,
    Logprob,
    Prefill,
    Sampling,
    TokenLogprobs,
)
from server.errors import ConfigError

_INCOMPLETE = "\ufffd"


class Vocabulary(Protocol):
    """What the simulated engine needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...


class Script:
    """`reply` may name `{prompt_tokens}` and `{cached_tokens}`, and comes over and over when `ignore_eos` is set.

    Raises `ConfigError` for a reply that the vocabulary has no token for: it would never end.
    """

    def __init__(self, reply: str, vocabulary: Vocabulary) -> None:
        if not vocabulary.encode(reply):
            raise ConfigError(
                f"the model's vocabulary has no token for the simulated reply {reply!r}",
                next_step="set engine.simulated.reply to plain text",
            )
        self._reply = reply
        self._vocabulary = vocabulary
        self._tokens_of = lru_cache(maxsize=1_024)(self._tokens_of_uncached)

    def answer(self, request: GenerateRequest, cached_tokens: int, index: int) -> Answer:
        reply = self._reply.replace("{prompt_tokens}", str(len(request.prompt_token_ids)))
        reply = reply.replace("{cached_tokens}", str(cached_tokens))
        return Answer(self._tokens_of(reply), request.sampling, index)

    def _tokens_of_uncached(self, reply: str) -> tuple[tuple[int, str], ...]:
        """(token, the text it completes): a character that spans tokens comes with its last."""
        token_ids = self._vocabulary.encode(reply)
        tokens: list[tuple[int, str]] = []
        start = 0
        for end, token in enumerate(token_ids, start=1):
            text = self._vocabulary.decode(token_ids[start:end])
            if text.endswith(_INCOMPLETE) and end < len(token_ids):
                text = ""
            else:
                start = end
            tokens.append((token, text))
        return tuple(tokens)


class Answer:
    """One answer, a token at a time; a stop string ends it and never shows."""

    __slots__ = (
        "_ends_by_itself", "_held", "_index", "_length", "_n_held", "_n_sent", "_sampling", "_tokens", "is_over",
    )  # fmt: skip

    def __init__(self, tokens: Sequence[tuple[int, str]], sampling: Sampling, index: int) -> None:
        self._sampling = sampling
        self._index = index
        self._length = sampling.max_tokens if sampling.ignore_eos else min(len(tokens), sampling.max_tokens)
        self._ends_by_itself = not sampling.ignore_eos and len(tokens) < sampling.max_tokens
        self._tokens: Iterator[tuple[int, str]] = itertools.cycle(tokens)
        self._n_sent = 0
        self.is_over = False
        self._held = ""
        self._n_held = max((len(stop) for stop in sampling.stop), default=1) - 1

    def next_delta(self, prefill: Prefill | None) -> Delta:
        token, text = next(self._tokens)
        self._n_sent += 1
        finish: FinishReason | None = None
        if self._n_sent == self._length:
            finish = "stop" if self._ends_by_itself else "length"
        if self._sampling.stop:
            text, finish = self._watch_for_stop(text, finish)
        self.is_over = finish is not None
        logprobs = () if self._sampling.logprobs is None else (self._logprobs_of(text),)
        return Delta((token,), text, finish, prefill, self._index, logprobs)

    def _watch_for_stop(self, text: str, finish: FinishReason | None) -> tuple[str, FinishReason | None]:
        """Hold back as much as could be the beginning of a stop string."""
        text = self._held + text
        cut = min((at for stop in self._sampling.stop if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            return text[:cut], "stop"
        keep = 0 if finish else min(self._n_held, len(text))
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], finish

    def _logprobs_of(self, text: str) -> TokenLogprobs:
        """Made up: every token is drawn with probability 1/e, its alternatives are ever less likely."""
        drawn = Logprob(text, -1.0)
        others = tuple(
            Logprob(f"other {rank}", -1.0 - rank) for rank in range(1, self._sampling.logprobs or 0)
        )
        return TokenLogprobs(drawn, (drawn, *others) if self._sampling.logprobs else ())

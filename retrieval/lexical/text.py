"""From text to terms: the one analysis that chunks and queries go through.

Words are folded (NFKC, case, accents), English stop words dropped and the rest stemmed. Scripts that put no space
between words (Chinese, Japanese, Thai, ...) are indexed character by character: crude, but a query finds them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

MAX_QUERY_CHARACTERS = 4_096
"""Of each part of a query; what is beyond them is not read."""
MAX_QUERY_TERMS = 32
MAX_TERM_BYTES = 64
"""Longer words (encoded data, mostly) are not indexed."""

_WORDS = """
a an the this that these those here there such same own other others another each every either neither both all
any some many much more most few less least several enough no none nor not only so too very just even also again
ever yet still quite rather almost
i me my mine myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one ones someone anyone everyone something anything
everything nothing somebody anybody everybody nobody
who whom whose which what when where why how whether whatever whenever wherever whichever
am is are was were be been being do does did doing done have has had having can could shall should will would
may might must ought
and or but if because as until while although though than then once since unless whereas
of at by for with about against between into through during before after above below to from up down in out on
off over under upon within without toward towards among across per via
s t d m ll re ve don didn doesn isn aren wasn weren won wouldn shouldn couldn hasn haven hadn ain
please thanks thank hello hi hey ok okay yes yeah like let lets tell know want
"""
FUNCTION_WORDS = frozenset(_WORDS.split())
"""English words that say nothing about a subject: closed classes, what contractions leave, politeness.

tantivy's own list has 33 words, and none of those that questions are made of.
"""

_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def prepared(text: str) -> str:
    """What the analyzer is given: NFKC, with spaces around each character of a script without them."""
    if text.isascii():
        return text
    # A lone surrogate has no UTF-8 form, which is what the index takes.
    text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
    return _SPACELESS.sub(r" \g<0> ", text)


def analyzer(language: str) -> Any:
    """A tantivy `TextAnalyzer`. `language` is one of tantivy's stemmers; empty: neither stop words nor stems."""
    import tantivy

    builder = (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(MAX_TERM_BYTES))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
    )
    if language:
        words = (
            tantivy.Filter.custom_stopword(sorted(FUNCTION_WORDS))
            if language == "english"
            else tantivy.Filter.stopword(language)
        )
        builder = builder.filter(words).filter(tantivy.Filter.stemmer(language))
    return builder.build()


def query_terms(analyzer: Any, parts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Each term's weight: the sum over the parts, counted once in each part.

    At most `MAX_QUERY_TERMS`, the heaviest and of equal ones the earliest.
    """
    weights: dict[str, float] = {}
    for text, weight in parts:
        if weight <= 0:
            continue
        for term in dict.fromkeys(analyzer.analyze(prepared(text[:MAX_QUERY_CHARACTERS]))):
            weights[term] = weights.get(term, 0.0) + weight
    heaviest = sorted(weights, key=lambda term: -weights[term])[:MAX_QUERY_TERMS]
    return {term: weights[term] for term in heaviest}

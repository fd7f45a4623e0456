"""Made-up text of a wanted length, for workloads that say how long a prompt is but not what it says.

A passage is lower-case English words, one space between them. The words are short and frequent, so that each is one
token of its own in the common English vocabularies. Measured: 200 words are 200 tokens of SmolLM2's byte-level BPE
and 200 of BERT's WordPiece, without the chat template and without special tokens. A vocabulary made for another
language may need more.
"""

from __future__ import annotations

import random

_FREQUENT = """
the of and to in is it you that he was for on are with as his they be at one have this from or had by
hot but some what there we can out other were all your when up use word how said an each she which do
their time if will way about many then them would write like so these her long make thing see him two
has look more day could go come did my sound no most who over know water than call first may down side
been now find any new work part take get place made live where after back only round man year came show
every good me give our under name very just form much great think say help low line turn cause same mean
move right boy old too does tell set three want air well also play small end put home read hand port
large add even land here must big high such act why ask men went light kind off need house try us again
point world near build self earth head stand own page found grow study still learn plant cover food sun
four let keep eye never last door city tree cross since hard start might story far sea draw left late
run while press close night real life few stop open next white begin got walk paper often music those
both mark book until mile river car feet care group rain eat room idea fish north once base horse cut
watch color face wood main plain girl usual young ready above ever red list feel talk bird soon body dog
pose leave song state black short class wind ship area half rock order fire south piece pass farm top
whole king size best hour true step early hold west reach fast five sing six table less ten lay slow
love money road map rule pull cold voice fall power town fine drive led dark note wait plan star box
field rest able pound done stood front week final green quick sleep warm free mind clear tail fact inch
lot stay wheel full force blue
"""
_WORDS = tuple(_FREQUENT.split())

_OPENING_WORDS = 4
_STREAM_WORDS = 1 << 16
_SPREAD = 6_700_417
"""Shares no factor with 360, so numbers stay distinct, and small ones do not all look alike."""


class Prose:
    """Passages by number: the same seed, number and length give the same text, a longer one goes on where it ended.

    Passages with different numbers differ early, so that no prefix cache finds one in the other by accident: the first
    four words are the number itself, written in base 360 with the lowest digit first. Passages with another seed
    differ too, so that a second run does not find the first one's prompts in the cache.
    """

    def __init__(self, seed: int) -> None:
        shuffle = random.Random(f"prose {seed}")
        self._digits = list(_WORDS)
        shuffle.shuffle(self._digits)
        self._stream = shuffle.choices(_WORDS, k=_STREAM_WORDS)

    def passage(self, number: int, n_words: int) -> str:
        """Distinct for all numbers below 360⁴ when it has four words or more."""
        words: list[str] = []
        rest = number * _SPREAD
        for _ in range(_OPENING_WORDS):
            rest, digit = divmod(rest, len(self._digits))
            words.append(self._digits[digit])
        position = number * 7_919 % _STREAM_WORDS  # a prime, so that neighbours do not read the same words
        while len(words) < n_words:
            words += self._stream[position : position + n_words - len(words)]
            position = 0
        return " ".join(words[:n_words])

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.engine.prefix_cache import PrefixCache

BLOCK = 4
prompts = st.lists(st.integers(0, 2), min_size=1, max_size=24)


@given(
    served=st.lists(st.tuples(prompts, st.sampled_from("ab")), max_size=12),
    prompt=prompts,
    salt=st.sampled_from("ab"),
)
def test_with_room_for_all_a_match_is_the_longest_common_prefix_in_blocks(
    served: list[tuple[list[int], str]], prompt: list[int], salt: str
) -> None:
    cache = PrefixCache(n_blocks=10_000, block_size=BLOCK)
    for token_ids, its_salt in served:
        chain = cache.chain(token_ids, its_salt)
        cache.hold(chain)
        cache.release(chain)
    expected = 0
    for token_ids, its_salt in served:
        if its_salt == salt:
            whole = (len(prompt) - 1) // BLOCK * BLOCK
            while_same = 0
            while (
                while_same + BLOCK <= min(whole, len(token_ids))
                and token_ids[while_same : while_same + BLOCK] == prompt[while_same : while_same + BLOCK]
            ):
                while_same += BLOCK
            expected = max(expected, while_same)
    assert cache.match(cache.chain(prompt, salt), len(prompt)) == expected


@given(served=st.lists(prompts, max_size=30))
def test_the_cache_never_outgrows_its_blocks_while_nothing_runs(served: list[list[int]]) -> None:
    cache = PrefixCache(n_blocks=5, block_size=BLOCK)
    for token_ids in served:
        chain = cache.chain(token_ids, "")
        cache.hold(chain)
        cache.release(chain)
        assert cache.blocks_in_use == 0
        assert len(cache._idle) <= 5


def test_the_last_token_is_always_computed() -> None:
    cache = PrefixCache(100, BLOCK)
    prompt = list(range(BLOCK * 2))
    cache.hold(cache.chain(prompt, ""))
    assert cache.match(cache.chain(prompt, ""), len(prompt)) == BLOCK


def test_blocks_that_run_are_not_evicted() -> None:
    cache = PrefixCache(2, BLOCK)
    running = cache.chain([1] * BLOCK * 2, "")
    cache.hold(running)
    for other in range(5):
        chain = cache.chain([other + 5] * BLOCK, "")
        cache.hold(chain)
        cache.release(chain)
    assert cache.match(running, BLOCK * 2 + 1) == BLOCK * 2

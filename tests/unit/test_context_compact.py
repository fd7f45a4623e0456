from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.context.compact import dropped, entry_tokens, pays_off, price, shed_passages, shed_turns
from server.context.entry import Entry, Injected, pack
from server.context.template import Role

ROLES: list[Role] = ["user", "assistant"] * 4


def question(*numbers: int, pointed: tuple[int, ...] = (), tokens: int = 10) -> Entry:
    passages = tuple(Injected(number, 100 + number, f"c{number}", pack([7] * tokens)) for number in numbers)
    return Entry(pack([1] * 5), passages, pointed, max(numbers, default=0))


REPLY = Entry(pack([2] * 5))


def numbers(history: list[Entry]) -> list[int]:
    return [passage.number for entry in history for passage in entry.passages]


def history(*questions: Entry) -> list[Entry]:
    return [entry for asked in questions for entry in (asked, REPLY)]


FOUR = history(question(1, 2), question(3), question(4), question(5, pointed=(1,)))


def test_passages_of_the_last_two_turns_are_in_use_and_so_are_those_pointed_to() -> None:
    assert numbers(shed_passages(FOUR, ROLES, ())) == [1, 4, 5]


def test_what_the_coming_question_wants_stays() -> None:
    assert numbers(shed_passages(FOUR, ROLES, {103})) == [1, 3, 4, 5]


def test_the_oldest_go_first_and_no_more_than_is_needed() -> None:
    assert numbers(shed_passages(FOUR, ROLES, (), 10)) == [1, 3, 4, 5]
    assert numbers(shed_passages(FOUR, ROLES, (), 11)) == [1, 4, 5]
    assert shed_passages(FOUR, ROLES, (), 0) == FOUR


def test_shedding_passages_leaves_words_and_numbers_alone() -> None:
    left = shed_passages(FOUR, ROLES, ())
    assert [entry.content for entry in left] == [entry.content for entry in FOUR]
    assert [entry.numbered_to for entry in left] == [entry.numbered_to for entry in FOUR]


def test_turns_go_whole_oldest_first() -> None:
    left = shed_turns(FOUR, ROLES, 1)
    assert [entry.dropped for entry in left] == [True] * 2 + [False] * 6
    assert [entry.dropped for entry in shed_turns(FOUR, ROLES, 31)] == [True] * 4 + [False] * 4
    assert all(entry.dropped for entry in shed_turns(FOUR, ROLES, 2**31))
    assert shed_turns(FOUR, ROLES, 0) == FOUR


def test_a_turn_goes_with_its_tools_and_a_greeting_by_itself() -> None:
    roles: list[Role] = ["assistant", "user", "assistant", "tool", "assistant", "user"]
    left = [REPLY] * 6
    assert [entry.dropped for entry in shed_turns(left, roles, 1)] == [True] + [False] * 5
    assert [entry.dropped for entry in shed_turns(left, roles, 6)] == [True] * 5 + [False]


def test_what_is_dropped_keeps_its_numbers_and_its_opening() -> None:
    entry = Entry(pack([1]), question(1).passages, (1,), 3, (), pack([9]))
    gone = dropped(entry)
    assert (gone.numbered_to, gone.opening, gone.dropped) == (3, entry.opening, True)
    assert entry_tokens(gone) == 0
    assert gone.pointed == ()


def test_ten_thousand_messages_are_shed() -> None:
    roles: list[Role] = ["user", "assistant"] * 200
    left = shed_turns(history(*(question(n) for n in range(1, 201))), roles, 2**31)
    assert all(entry.dropped for entry in left)


def test_a_token_deep_in_a_context_costs_more() -> None:
    assert price(0, 1_000, 0.25) == 0
    assert price(100, 100, 0.0) == 100
    assert price(100, 4_000, 0.25) > price(100, 1_000, 0.25) > 100
    assert price(1_000, 1_000, 1.0) == 1_000 * 1.5


sizes = st.integers(0, 20_000)


@given(st.data(), st.floats(0, 10), st.booleans())
def test_paying_off_is_monotone(data: st.DataObject, attention_cost: float, typing: bool) -> None:
    """What pays off still does when the longer prompt costs more, when compacting costs less, and while typing."""
    tokens = data.draw(st.integers(2, 20_000))
    shorter = data.draw(st.integers(1, tokens - 1))
    to_compute, then = data.draw(st.integers(0, tokens)), data.draw(st.integers(0, shorter))
    a_turn = data.draw(st.integers(0, 2_000))

    def pays(more: int = 0, less: int = 0, a_turn: int = a_turn, typing: bool = typing) -> bool:
        appended, compacted = (min(tokens, to_compute + more), tokens), (max(0, then - less), shorter)
        return pays_off(appended, compacted, a_turn, attention_cost, typing=typing)

    if pays():
        more = data.draw(sizes)
        assert pays(more=more)
        assert pays(less=more)
        assert pays(a_turn=a_turn + more)
        assert pays(typing=True)


def test_on_a_cold_engine_the_shorter_prompt_always_pays_off_and_on_a_hot_one_for_nothing_never() -> None:
    assert pays_off((2_000, 2_000), (1_000, 1_000), 0, 0.25, typing=False)
    assert not pays_off((100, 2_000), (1_000, 1_900), 200, 0.0, typing=False)

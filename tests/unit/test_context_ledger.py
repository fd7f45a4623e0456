from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from server.context import ledger as ledger_module
from server.context.conversation import Conversation
from server.context.entry import Entry, pack
from server.context.ledger import Ledger, Recalled, chain
from server.context.memory_store import MemoryStore
from server.context.template import Message, ToolCall

pytestmark = pytest.mark.anyio

ROOT = b"root"
TOOL = {"type": "function", "function": {"name": "find"}}


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, *arguments: str) -> Message:
    return Message("assistant", text, tuple(ToolCall("1", "find", it) for it in arguments))


def talk(*texts: str, system: str | None = None) -> Conversation:
    """Turn by turn; the last text is the question."""
    said = [(user, assistant)[n % 2](text) for n, text in enumerate(texts)]
    return Conversation(system, tuple(said[:-1]), texts[-1])


def entry(*token_ids: int) -> Entry:
    return Entry(pack(token_ids))


def key(message: Message) -> bytes:
    return chain(ROOT, [message])[0]


async def commit(ledger: Ledger, conversation: Conversation, *entries: Entry, reply: str = "") -> Recalled:
    recalled = await ledger.recall(conversation, "t", "")
    replies = [(assistant(reply), entry(99))] if reply else []
    ledger.commit(recalled, entries, replies)
    return recalled


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(MemoryStore(1_000_000), b"fingerprint")


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        (user("a\r\nb"), user("a\nb")),
        (user("a\rb"), user("a\nb")),
        (user(" a \n"), user("a")),
        (user("\u00a0a\r\n"), user("a")),
        (user("caf\u0065\u0301"), user("caf\u00e9")),
        (assistant("", '{"a": 1, "b": [true]}'), assistant("\n", '{"b":[true],"a":1}')),
        (
            Message("assistant", "", (ToolCall("1", "f", "{}"),)),
            Message("assistant", "", (ToolCall("2", "f", "{ }"),)),
        ),
    ],
)
def test_what_clients_do_to_a_text_leaves_its_key(sent: Message, back: Message) -> None:
    assert key(sent) == key(back)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("a"), user("A")),
        (user("a b"), user("a  b")),
        (user("a\nb"), user("a b")),
        (user("a"), assistant("a")),
        (user("ﬁ"), user("fi")),
        (assistant("a"), assistant("a", "{}")),
        (assistant("", "{}"), assistant("", "{}", "{}")),
        (assistant("", '{"a": 1}'), assistant("", '{"a": "1"}')),
        (assistant("", "no json"), assistant("", '"no json"')),
        (assistant("", "[" * 5_000), assistant("", "[" * 5_001)),
    ],
)
def test_what_means_something_else_has_another_key(one: Message, other: Message) -> None:
    assert key(one) != key(other)


def test_a_key_holds_all_that_was_said_before() -> None:
    one, other = chain(ROOT, [user("a"), user("c")]), chain(ROOT, [user("b"), user("c")])
    assert one[1] != other[1]
    assert chain(ROOT, [user("ab"), user("c")])[1] != chain(ROOT, [user("a"), user("bc")])[1]


def test_the_chain_encodes_each_message_once_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []

    def encode(value: Any) -> bytes:
        encoded.append(value)
        return repr(value).encode()

    monkeypatch.setattr(ledger_module, "_encode", encode)
    messages = [user(f"{n}") for n in range(10_000)]
    assert len(set(chain(ROOT, messages))) == len(encoded) == 10_000


async def test_a_branch_finds_its_longest_common_beginning(ledger: Ledger) -> None:
    await commit(ledger, talk("q1"), entry(1), reply="a1")
    await commit(ledger, talk("q1", "a1", "q2"), entry(1), entry(99), entry(3), reply="a2")
    for branch, n_known in (
        (talk("q1", "a1", "q2", "a2", "q3"), 4),
        (talk("q1", "a1", "q2", "another", "q3"), 3),
        (talk("q1", "a1", "edited"), 2),
        (talk("q1", "tampered", "q2"), 1),
        (talk("edited", "a1", "q2"), 0),
    ):
        recalled = await ledger.recall(branch, "t", "")
        assert recalled.entries == (entry(1), entry(99), entry(3), entry(99))[:n_known]
        assert recalled.knows_history == (n_known >= len(branch.history))


@pytest.mark.parametrize(
    ("tenant", "scope", "system", "tools"),
    [("u", "", None, []), ("t", "x", None, []), ("t", "", "Be brief.", []), ("t", "", None, [TOOL])],
)
async def test_another_tenant_scope_system_message_or_tools_finds_nothing(
    ledger: Ledger, tenant: str, scope: str, system: str | None, tools: Sequence[dict[str, Any]]
) -> None:
    await commit(ledger, talk("q1"), entry(1), reply="a1")
    other = await ledger.recall(talk("q1", "a1", "q2", system=system), tenant, scope, tools)
    assert other.entries == ()
    assert (await ledger.recall(talk("q1", "a1", "q2"), "t", "")).entries == (entry(1), entry(99))


async def test_another_fingerprint_finds_nothing(ledger: Ledger) -> None:
    await commit(ledger, talk("q1"), entry(1), reply="a1")
    await ledger.close()
    other = Ledger(ledger.store, b"another template")
    assert (await other.recall(talk("q1", "a1", "q2"), "t", "")).entries == ()


def test_scope_and_tenant_do_not_run_into_each_other(ledger: Ledger) -> None:
    roots = {
        ledger.locate(talk("q", system=system), tenant, scope).root
        for tenant, scope, system in (("ab", "c", None), ("a", "bc", None), ("a", "b", "c"), ("a", "b", None))
    }
    assert len(roots) == 4


@pytest.mark.parametrize("most", [1, 2**64, -(2**70)])
def test_tools_are_told_apart_whatever_numbers_their_schemas_hold(ledger: Ledger, most: int) -> None:
    schemas = [{"maximum": most}, {"maximum": most + 1}, {"maximum": most, "type": "integer"}]
    roots = {ledger.locate(talk("q"), "t", "", [{"parameters": schema}]).root for schema in schemas}
    assert len(roots) == 3
    turned = [{"parameters": {"type": "integer", "maximum": most}}]
    assert ledger.locate(talk("q"), "t", "", turned).root in roots


class SlowStore(MemoryStore):
    """Writes when it is let to, and tells in which order."""

    def __init__(self) -> None:
        super().__init__(1_000_000)
        self.let = asyncio.Event()
        self.written: list[list[bytes]] = []

    async def put(self, values: Mapping[bytes, bytes], after: Sequence[bytes] = ()) -> None:
        await self.let.wait()
        self.written.append(list(values.values()))
        await super().put(values, after)


async def test_a_recall_waits_for_the_commits_of_its_root_and_they_keep_their_order() -> None:
    store = SlowStore()
    ledger = Ledger(store, b"")
    first = await ledger.recall(talk("q1"), "t", "")
    ledger.commit(first, [entry(1)], [(assistant("a1"), entry(2))])
    ledger.commit(first, [entry(3)], [(assistant("a1"), entry(4))])
    waiting = asyncio.create_task(ledger.recall(talk("q1", "a1", "q2"), "t", ""))
    elsewhere = await ledger.recall(talk("q1"), "other tenant", "")
    await asyncio.sleep(0)
    assert elsewhere.entries == ()
    assert not waiting.done()
    store.let.set()
    assert (await waiting).entries == (entry(3), entry(4))
    assert [len(values) for values in store.written] == [2, 2]


async def test_a_recall_that_is_given_up_leaves_the_commit_alone() -> None:
    store = SlowStore()
    ledger = Ledger(store, b"")
    ledger.commit(await ledger.recall(talk("q1"), "t", ""), [entry(1)], [])
    waiting = asyncio.create_task(ledger.recall(talk("q1"), "t", ""))
    await asyncio.sleep(0)
    waiting.cancel()
    store.let.set()
    await asyncio.wait([waiting])
    assert (await ledger.recall(talk("q1"), "t", "")).entries == (entry(1),)


async def test_replies_side_by_side_are_all_found(ledger: Ledger) -> None:
    recalled = await ledger.recall(talk("q1"), "t", "")
    ledger.commit(recalled, [entry(1)], [(assistant("one"), entry(2)), (assistant("two"), entry(3))])
    assert (await ledger.recall(talk("q1", "one", "q2"), "t", "")).entries[1] == entry(2)
    assert (await ledger.recall(talk("q1", "two", "q2"), "t", "")).entries[1] == entry(3)


async def test_what_was_known_is_not_written_again() -> None:
    store = SlowStore()
    store.let.set()
    ledger = Ledger(store, b"")
    await commit(ledger, talk("q1"), entry(1), reply="a1")
    await commit(ledger, talk("q1", "a1", "q2"), entry(1), entry(99), entry(3), reply="a2")
    await ledger.close()
    assert [len(values) for values in store.written] == [2, 2]


async def test_what_the_store_holds_amiss_ends_what_is_known(ledger: Ledger) -> None:
    recalled = await commit(ledger, talk("q1"), entry(1), reply="a1")
    await ledger.close()
    await ledger.store.put({recalled.keys[0]: b"not an entry"})
    assert (await ledger.recall(talk("q1", "a1", "q2"), "t", "")).entries == ()


async def test_turns_are_counted_by_how_much_of_their_history_was_known(ledger: Ledger) -> None:
    await commit(ledger, talk("q1"), entry(1), reply="a1")
    for conversation in (
        talk("q9"),
        talk("q1", "a1", "q2"),
        talk("q1", "other", "q2"),
        talk("q9", "a1", "q2"),
    ):
        ledger.count(await ledger.recall(conversation, "t", ""))
    assert ledger.recalled == {"first": 1, "whole": 1, "part": 1, "none": 1}


async def test_ten_thousand_messages_are_recalled_and_kept(ledger: Ledger) -> None:
    ledger = Ledger(MemoryStore(100_000_000), b"")
    texts = [f"{n}" for n in range(9_999)]
    recalled = await ledger.recall(talk(*texts), "t", "")
    ledger.commit(recalled, [entry(n) for n in range(9_999)], [])
    again = await ledger.recall(talk(*texts, "reply", "next"), "t", "")
    assert again.entries == tuple(entry(n) for n in range(9_999))

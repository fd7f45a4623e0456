from __future__ import annotations

import pytest

from retrieval.types import Query
from server.context.conversation import read_conversation
from server.context.template import Message
from server.errors import InvalidParameter


def test_reading_counts_turns_and_joins_system_messages() -> None:
    found = read_conversation(
        [
            Message("system", "a"),
            Message("user", "one"),
            Message("assistant", "reply"),
            Message("system", "b"),
            Message("assistant", "  "),
            Message("user", "two"),
        ]
    )
    assert found.turn == 2
    assert found.system == "a\n\nb"
    assert found.question == "two"
    assert found.query == Query("two", ("one",), "reply")
    assert [message.content for message in found.history] == ["one", "reply"]


@pytest.mark.parametrize(
    ("last", "param"),
    [(Message("assistant", "x"), "messages[1].role"), (Message("user", " \n"), "messages[1].content")],
)
def test_the_last_message_is_the_users_and_not_blank(last: Message, param: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        read_conversation([Message("user", "first"), last])
    assert raised.value.param == param

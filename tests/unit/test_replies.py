from __future__ import annotations

from collections.abc import Sequence

import pytest

from server.context.entry import unpack
from server.context.template import ChatTemplate, Message, ToolCall
from server.engine.protocol import Delta, FinishReason, ToolCallPiece
from server.replies import Reply

END = 2
ENDS = frozenset({END, 0})


def reply(
    template: ChatTemplate,
    token_ids: Sequence[int],
    finish_reason: FinishReason | None = "stop",
    text: str | None = None,
    **told: object,
) -> Reply:
    """As an engine that gives one token at a time; `text` is told with the last."""
    made = Reply()
    for token_id in token_ids[:-1]:
        made.add(Delta((token_id,), ""), Delta((token_id,), ""))
    said = template.decode([it for it in token_ids if it not in ENDS]) if text is None else text
    last = tuple(token_ids[-1:])
    made.add(Delta(last, said, finish_reason), Delta(last, said, finish_reason, **told))
    return made


def kept(reply: Reply, template: ChatTemplate, stop: Sequence[str] = ()) -> list[int]:
    return unpack(reply.entry(template, ENDS, stop).content)


@pytest.mark.parametrize("ends", [[], [END], [END, END], [0, END]])
def test_the_engines_own_tokens_are_kept_without_what_ends_them(
    template: ChatTemplate, ends: list[int]
) -> None:
    own = [*template.encode("a"), *template.encode("b")]
    assert own != template.encode("ab")
    assert kept(reply(template, [*own, *ends]), template) == own


def test_a_refusal_is_kept_as_the_same_words_would_be(template: ChatTemplate) -> None:
    own = template.encode("No.")
    refused = reply(template, own, text="", refusal="No.")
    assert refused.message() == Message("assistant", "No.")
    assert kept(refused, template, stop=["x"]) == own


def test_an_end_in_the_middle_stays(template: ChatTemplate) -> None:
    assert kept(reply(template, [28, END, 33, END]), template) == [28, END, 33]


def test_a_reply_cut_at_its_length_is_kept_whole(template: ChatTemplate) -> None:
    assert kept(reply(template, [28, 33, END], "length"), template) == [28, 33, END]


def test_a_reply_whose_client_went_is_kept_as_far_as_it_came(template: ChatTemplate) -> None:
    assert kept(reply(template, [28, 33], None), template) == [28, 33]
    assert kept(reply(template, [28, END], None), template) == [28]


@pytest.mark.parametrize(
    ("said", "stop"),
    [
        ("One. Two.", "STOP"),
        ("One", " STOP"),
        ("", "STOP"),
        ("1\n2\n", "\n\n"),
        ("Où est", " 👋"),
        ("a b c", " d"),
    ],
)
def test_the_tokens_of_a_stop_string_are_cut_off(template: ChatTemplate, said: str, stop: str) -> None:
    token_ids = template.encode(said + stop + " more")[: len(template.encode(said + stop))]
    made = reply(template, token_ids, text=said)
    content = kept(made, template, [stop])
    assert template.decode(content) == said
    shared = [a == b for a, b in zip(content, token_ids, strict=False)]
    assert all(shared[:-1])
    assert made.message() == Message("assistant", said)


def test_a_stop_string_within_a_token_leaves_the_rest_of_it(template: ChatTemplate) -> None:
    (whole,) = template.encode(" within")
    made = reply(template, [28, whole], text=template.decode([28]) + " with")
    assert template.decode(kept(made, template, ["in"])) == template.decode([28]) + " with"


def test_a_stop_string_that_never_came_cuts_nothing(template: ChatTemplate) -> None:
    own = [*template.encode("a"), *template.encode("b")]
    assert kept(reply(template, [*own, END]), template, ["STOP"]) == own


def test_reasoning_is_left_out_and_the_rest_tokenised_anew(template: ChatTemplate) -> None:
    made = reply(template, template.encode("I think so. Yes."), text="Yes.", reasoning="I think so. ")
    assert kept(made, template) == template.encode("Yes.")
    assert made.message() == Message("assistant", "Yes.")


def test_calls_are_gathered_from_their_pieces_and_their_tokens_kept(template: ChatTemplate) -> None:
    made = Reply()
    pieces = [
        ToolCallPiece(0, "call1", "find", '{"a"'),
        ToolCallPiece(1, "call2", "look"),
        ToolCallPiece(0, arguments=": 1}"),
        ToolCallPiece(1, arguments="{}"),
    ]
    for n, piece in enumerate(pieces):
        made.add(Delta((100 + n,), "x"), Delta((100 + n,), "", tool_calls=(piece,)))
    made.add(Delta((END,), "", "stop"), Delta((END,), "", "tool_calls"))
    calls = (ToolCall("", "find", '{"a": 1}'), ToolCall("", "look", "{}"))
    assert made.message() == Message("assistant", "", calls)
    assert kept(made, template, ["STOP"]) == [100, 101, 102, 103]


def test_a_reply_of_nothing_is_empty(template: ChatTemplate) -> None:
    assert kept(reply(template, [END]), template) == []
    assert kept(Reply(), template) == []
    assert Reply().message() == Message("assistant", "")

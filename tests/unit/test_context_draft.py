from __future__ import annotations

import pytest

from server.context.draft import Draft, Drafter
from server.context.entry import Entry, Injected, pack, unpack
from server.context.joints import Joints
from server.context.template import ChatTemplate, Role
from server.sections.prompt import PromptSettings

ROLES: list[Role] = ["user", "assistant", "user"]


@pytest.fixture(scope="module")
def drafter(template: ChatTemplate) -> Drafter:
    return Drafter(
        template, Joints(template), PromptSettings(passages_header="PASSAGES", pointer="See {numbers}.")
    )


@pytest.fixture(scope="module")
def made(template: ChatTemplate) -> list[Entry]:
    def line(number: int) -> Injected:
        return Injected(number, number, f"c{number}", pack(template.encode(f"[{number}] text\n")))

    return [
        Entry(pack(template.encode("one")), (line(1), line(2)), (), 2),
        Entry(pack([28, 33])),
        Entry(pack(template.encode("three")), (line(3),), (2, 9), 3),
    ]


def draft(drafter: Drafter, entries: list[Entry], roles: list[Role] = ROLES) -> Draft:
    made = drafter.draft(entries, roles, len(entries) - 1, "SYSTEM", ())
    assert made is not None
    return made


def text(template: ChatTemplate, token_ids: list[int]) -> str:
    written: str = template.tokenizer.decode(token_ids, skip_special_tokens=False)
    return written


def test_entries_stand_between_the_joints(
    drafter: Drafter, template: ChatTemplate, made: list[Entry]
) -> None:
    whole = draft(drafter, made)
    reply = template.decode([28, 33])
    assert text(template, whole.token_ids) == (
        "<|im_start|>system\nSYSTEM<|im_end|>\n"
        "<|im_start|>user\nPASSAGES\n[1] text\n[2] text\none<|im_end|>\n"
        f"<|im_start|>assistant\n{reply}<|im_end|>\n"
        "<|im_start|>user\nPASSAGES\n[3] text\nSee [2].\nthree<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_places_in_it_are_told(drafter: Drafter, template: ChatTemplate, made: list[Entry]) -> None:
    whole = draft(drafter, made)
    marks = (whole.opening_tokens, whole.history_tokens, whole.passages_end, whole.content_at)
    pieces = [whole.token_ids[a:b] for a, b in zip((0, *marks), (*marks, None), strict=True)]
    shown = [text(template, piece) for piece in pieces]
    assert shown[0].endswith("SYSTEM<|im_end|>\n<|im_start|>user\n")
    assert shown[1].endswith("<|im_start|>user\n")
    assert shown[2:4] == ["PASSAGES\n[3] text\n", "See [2].\n"]
    assert shown[4].startswith("three<|im_end|>")


def test_a_dropped_message_leaves_nothing_and_what_pointed_to_it_does_not(
    drafter: Drafter, template: ChatTemplate, made: list[Entry]
) -> None:
    gone = Entry(b"", dropped=True, numbered_to=2)
    shown = text(template, draft(drafter, [gone, gone, made[2]]).token_ids)
    assert "one" not in shown
    assert "See" not in shown
    assert shown.count("<|im_start|>") == 3


def test_an_opening_stays_as_it_was_when_the_conversation_began(drafter: Drafter, made: list[Entry]) -> None:
    begun = draft(drafter, made[:1], ROLES[:1])
    assert begun.entries[0].opening == pack(begun.token_ids[: begun.opening_tokens])
    older = [Entry(made[0].content, opening=pack([5, 6, 7])), *made[1:]]
    later = draft(drafter, older)
    assert later.token_ids[:3] == [5, 6, 7]
    assert later.entries[0].opening == pack([5, 6, 7])


def test_an_opening_that_led_to_a_greeting_does_not_lead_to_a_question(
    drafter: Drafter, template: ChatTemplate, made: list[Entry]
) -> None:
    roles: list[Role] = ["assistant", "user"]
    greeted = draft(drafter, [made[1], made[0]], roles)
    assert text(template, unpack(greeted.entries[0].opening)).endswith("<|im_start|>assistant\n")
    gone = Entry(b"", opening=greeted.entries[0].opening, dropped=True)
    later = draft(drafter, [gone, made[0]], roles)
    assert text(template, later.token_ids[: later.opening_tokens]).endswith("<|im_start|>user\n")
    assert later.entries[0].opening == greeted.entries[0].opening


def test_a_prompt_begins_with_the_turn_before_and_its_reply(drafter: Drafter, made: list[Entry]) -> None:
    first = draft(drafter, made[:1], ROLES[:1])
    begun = [*first.token_ids, *unpack(made[1].content)]
    assert draft(drafter, [*first.entries, *made[1:]]).token_ids[: len(begun)] == begun


def test_without_a_pointer_text_nothing_is_pointed_to(template: ChatTemplate, made: list[Entry]) -> None:
    silent = Drafter(template, Joints(template), PromptSettings(pointer=""))
    assert "[2]." not in text(template, draft(silent, made).token_ids)


def test_roles_that_the_template_has_no_joints_for_have_no_draft(drafter: Drafter, made: list[Entry]) -> None:
    assert drafter.draft(made, ["user", "tool", "user"], 2, "SYSTEM", ()) is None

"""A prompt made of joints and contents only grows, whatever the roles, the words and the engine's own tokens."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.templates.families import FAMILIES, family_template
from server.context.joints import Joints
from server.context.template import ChatTemplate, Message, Role, ToolCall

_TEXTS = (
    *("<|im_start|>", "<|im_end|>", "</s>", "[INST]", "<end_of_turn>", "<think>", "</think>", "<tool_call>"),
    *("\ue000", "\ue0001\ue001", "system", "\n", "\n\n", " ", "a", "👋", '"', "{", "}", "é"),
)
texts = st.lists(st.sampled_from(_TEXTS), max_size=6).map("".join)
roles_of_turns = st.lists(
    st.sampled_from([["user", "assistant"], ["user", "assistant", "tool", "assistant"], ["user"]]),
    max_size=4,
).map(lambda turns: [role for turn in turns for role in turn])
any_roles = st.lists(st.sampled_from(["user", "assistant", "tool"]), max_size=7)
orders = st.one_of(roles_of_turns, any_roles).map(lambda roles: [*roles, "user"])
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
APPEND_ONLY = ["starter", "llama3", "llama31", "qwen25", "gemma3"]

several = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def families(template: ChatTemplate) -> dict[str, tuple[ChatTemplate, Joints]]:
    templates = {family: family_template(family, template) for family in FAMILIES} | {"starter": template}
    return {family: (of_family, Joints(of_family)) for family, of_family in templates.items()}


def joined(frame: list[tuple[int, ...]], contents: list[list[int]]) -> list[int]:
    token_ids = list(frame[0])
    for content, joint in zip(contents, frame[1:], strict=True):
        token_ids += [*content, *joint]
    return token_ids


@pytest.mark.parametrize("family", [*FAMILIES, "starter"])
@several
@given(data=st.data(), roles=orders, system=texts, has_tools=st.booleans())
def test_a_prompt_and_its_reply_begin_every_later_prompt(
    families: dict[str, tuple[ChatTemplate, Joints]],
    family: str,
    data: st.DataObject,
    roles: list[Role],
    system: str,
    has_tools: bool,
) -> None:
    template, joints = families[family]
    tools = [TOOL] if has_tools else []
    whole = joints.frame(roles, system, tools)
    if whole is None:
        return
    own_tokens = st.lists(st.integers(0, template.vocabulary_size - 1), max_size=5)
    contents = [
        data.draw(own_tokens) if role == "assistant" else template.encode(data.draw(texts)) for role in roles
    ]
    conversation = joined(whole, contents)
    for n, role in enumerate(roles):
        if role == "assistant" and n:
            earlier = joints.frame(roles[:n], system, tools)
            assert earlier is not None
            prompt = joined(earlier, contents[:n]) + contents[n]
            assert conversation[: len(prompt)] == prompt


@pytest.mark.parametrize("family", APPEND_ONLY)
@several
@given(data=st.data(), roles=orders, system=texts, has_tools=st.booleans())
def test_joints_write_what_an_append_only_template_writes(
    families: dict[str, tuple[ChatTemplate, Joints]],
    family: str,
    data: st.DataObject,
    roles: list[Role],
    system: str,
    has_tools: bool,
) -> None:
    template, joints = families[family]
    tools = [TOOL] if has_tools else []
    frame = joints.frame(roles, system, tools)
    if frame is None:
        return
    messages = [Message(role, data.draw(texts)) for role in roles]
    contents = [template.encode(message.content) for message in messages]
    opening = [Message("system", system)] if system else []
    assert joined(frame, contents) == template.render([*opening, *messages], tools)


@pytest.mark.parametrize("family", APPEND_ONLY)
@several
@given(words=texts, arguments=texts, name=texts, answers=st.lists(texts, min_size=1, max_size=3))
def test_calls_are_written_as_the_template_writes_them(
    families: dict[str, tuple[ChatTemplate, Joints]],
    family: str,
    words: str,
    arguments: str,
    name: str,
    answers: list[str],
) -> None:
    template, joints = families[family]
    said = Message("assistant", words, (ToolCall("call00001", name, arguments),))
    messages = [
        Message("user", "?"),
        said,
        *(Message("tool", answer, tool_call_id="call00001") for answer in answers),
    ]
    calls = joints.calls(said)
    frame = joints.frame([message.role for message in messages], "")
    if calls is None or frame is None:
        return
    contents = [template.encode(message.content) for message in messages]
    contents[1] += calls
    rendered = template.render(messages)
    assert template.tokenizer.decode(joined(frame, contents)) == template.tokenizer.decode(rendered)
    if words:  # Else `render` has no place to cut at between prompt and call.
        assert joined(frame, contents) == rendered

"""The layout of a prompt."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class PromptSettings(Section):
    system: str = (
        "You are a helpful assistant. Answer the user's question in one or two short sentences, "
        "with the facts that stand in the passages ahead of the question."
    )
    """Opens every prompt, unless the request brings a system message of its own."""
    passages_header: str = "Passages:"
    """Stands ahead of the passages in the user's turn."""
    pointer: str = "Passages: {numbers}"
    """Names the passages that are wanted again and stand in the prompt already; empty: they are not named."""
    nothing_found: str = "The documents hold nothing about this question. Say so, and do not guess."
    """Stands in place of the passages when the search found none (`retrieval.nothing_found = "tell"`)."""
    nothing_found_reply: str = "I could not find anything about this in the documents."
    """The whole answer then, where `retrieval.nothing_found = "refuse"`."""
    question_header: str = "Question: "
    """Stands ahead of the question, after the passages."""
    question_footer: str = ""
    """Follows the question when there are passages."""
    max_history_tokens: int = Field(1_024, ge=0)
    """Of turns that the ledger does not know, older ones are dropped beyond this many tokens."""

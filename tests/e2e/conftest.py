"""What the tests of the ledger and of type-ahead share."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversations import write_library
from gateways import MakeSettings
from server import parts
from server.context.template import ChatTemplate


@pytest.fixture
def library(
    make_settings: MakeSettings, knowledge: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> MakeSettings:
    """Settings of a gateway whose documents are those of `conversations.TOPICS`.

    It opens with the session's tokenizer, which takes longer to load than such a test to run.
    """
    monkeypatch.setattr(parts, "ChatTemplate", lambda _model: template)
    write_library(knowledge)
    return make_settings

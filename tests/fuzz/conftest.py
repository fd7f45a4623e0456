"""One server process for all that is thrown at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways import ServerProcess

START_S = 200


@pytest.fixture(scope="session")
def fuzzed_server(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The default configuration, tools and all, on an engine that answers at once."""
    folder = tmp_path_factory.mktemp("fuzz")
    knowledge = folder / "knowledge"
    knowledge.mkdir()
    (knowledge / "ports.md").write_text("# Ports\n\nFirstword listens on port 8000.\n")
    server = ServerProcess(
        [],
        {
            "FIRSTWORD_DATA_DIR": str(folder / "var"),
            "FIRSTWORD_ENGINE__KIND": "simulated",
            "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
            "FIRSTWORD_ENGINE__SIMULATED__PREFILL_TOKENS_PER_S": "10000000",
            "FIRSTWORD_ENGINE__SIMULATED__REPLY": "On port 8000. 👋",
            "FIRSTWORD_ENGINE__SIMULATED__TOKEN_INTERVAL_MS": "0",
            "FIRSTWORD_PREWARM__CALLS_PER_MINUTE": "1000000",
            "FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing",
            "FIRSTWORD_RETRIEVAL__MIN_SCORE": "-1",
            "FIRSTWORD_RETRIEVAL__SAMPLE_KNOWLEDGE": str(knowledge),
        },
    )
    try:
        server.wait_ready(START_S)
        yield server
    finally:
        server.stop()

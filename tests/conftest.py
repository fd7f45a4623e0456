"""What the suites share: the starter models, a gateway in this process, and one real server for the session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from gateways import Gateway, MakeSettings, ServerProcess, running
from server.context.template import ChatTemplate
from server.settings import PROJECT_ROOT, Settings, load_settings
from server.starter import starter_chat_model, starter_embedder, starter_is_prepared

# A slow machine is no failure.
hypothesis.settings.register_profile("firstword", deadline=None)
hypothesis.settings.load_profile("firstword")

MODELS = PROJECT_ROOT / "var" / "models"
ENGINE_START_S = 400


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def chat_model_path() -> Path:
    if not starter_is_prepared(MODELS):
        pytest.fail("the starter models are missing; run `make models`, or the tests through `make test`")
    return starter_chat_model(MODELS)


@pytest.fixture(scope="session")
def template(chat_model_path: Path) -> ChatTemplate:
    return ChatTemplate(str(chat_model_path))


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    """A folder with two small documents."""
    folder = tmp_path / "knowledge"
    folder.mkdir()
    (folder / "returns.md").write_text(
        "# Returns\n\n## Time limit\n\nAn item can be returned within 45 days.\n"
    )
    (folder / "hours.md").write_text("# Opening hours\n\n## Sunday\n\nThe shop is closed on Sunday.\n")
    return folder


@pytest.fixture
def make_settings(tmp_path: Path, chat_model_path: Path, knowledge: Path) -> MakeSettings:
    """Settings of a gateway with a simulated engine and a hashing embedder; keywords are dotted keys."""

    def make(**dotted: Any) -> Settings:
        overrides = {
            "data_dir": tmp_path / "var",
            "engine.kind": "simulated",
            "engine.model": str(chat_model_path),
            "engine.dtype": "float32",
            "engine.restart_backoff_s": 0.1,
            "engine.tool_parser": "",
            "engine.simulated.token_interval_ms": 2.0,
            "retrieval.embedder_kind": "hashing",
            "retrieval.min_score": -1.0,
            "retrieval.sample_knowledge": str(knowledge),
            "http.shutdown_grace_s": 1.0,
        }
        overrides |= {key.replace("__", "."): value for key, value in dotted.items()}
        return load_settings(PROJECT_ROOT / "configs" / "default.toml", overrides)

    return make


@pytest.fixture
async def gateway(make_settings: MakeSettings) -> AsyncIterator[Gateway]:
    async with running(make_settings()) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def real_server(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The default configuration on the real engine, FAISS, embedder and handbook: one for the session."""
    data = tmp_path_factory.mktemp("real")
    server = ServerProcess(
        [],
        {
            "FIRSTWORD_DATA_DIR": str(data),
            "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
            "FIRSTWORD_RETRIEVAL__EMBEDDER": str(starter_embedder(MODELS)),
        },
    )
    try:
        server.wait_ready(ENGINE_START_S)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def base_url(real_server: ServerProcess) -> str:
    return real_server.url

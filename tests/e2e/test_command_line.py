"""The command as people type it: every mistake has one message, a next step and its exit code."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateways import MakeSettings, running
from server.settings import PROJECT_ROOT

pytestmark = pytest.mark.anyio


def firstword(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTWORD_")}
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env=clean | {"COLUMNS": "200"} | environment,
        timeout=100,
        check=False,
    )


def assert_told(result: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in result.stderr


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from server.cli import app\n"
        "heavy = {'torch', 'vllm', 'transformers', 'faiss', 'numpy', 'pydantic', 'starlette', 'httpx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT_ROOT)


def test_help_names_every_command() -> None:
    result = firstword("--help")
    assert result.returncode == 0
    for command in ("serve", "ingest", "ask", "models", "config", "bench"):
        assert command in result.stdout


def test_config_show_names_every_key_and_no_secret(tmp_path: Path) -> None:
    result = firstword("config", "show", FIRSTWORD_AUTH__CACHE_SECRET="hush-hush")
    assert result.returncode == 0
    assert "engine.model" in result.stdout
    assert "hush-hush" not in result.stdout


def test_an_unknown_key_ends_with_2(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[http]\nprot = 1\n")
    assert_told(
        firstword("serve", "--config", str(config)), 2, "http.prot", "did you mean port", "config show"
    )


def test_a_missing_model_ends_with_3(tmp_path: Path) -> None:
    environment = {"FIRSTWORD_ENGINE__MODEL": "./nowhere", "FIRSTWORD_DATA_DIR": str(tmp_path)}
    environment |= {"FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing"}
    assert_told(firstword("serve", "--port", "0", **environment), 3, "./nowhere", "→")


def test_a_data_dir_that_cannot_be_made_is_named() -> None:
    assert_told(
        firstword("ingest", "docs", FIRSTWORD_DATA_DIR="/proc/none"), 2, "/proc/none", "FIRSTWORD_DATA_DIR"
    )


def test_models_that_cannot_be_written_are_named() -> None:
    result = firstword("models", "prepare", FIRSTWORD_DATA_DIR="/proc/none")
    assert_told(result, 3, "/proc/none", "data_dir")


def test_a_port_in_use_ends_with_4() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        assert_told(firstword("serve", "--port", str(port)), 4, str(port), "another program", "--port")


def test_an_open_address_without_keys_is_refused() -> None:
    assert_told(firstword("serve", "--host", "0.0.0.0"), 2, "auth.api_keys")


def test_ingest_takes_what_it_can_and_names_what_it_cannot(
    tmp_path: Path, chat_model_path: Path, knowledge: Path
) -> None:
    (knowledge / "broken.md").write_bytes(b"bad\x00")
    environment = {
        "FIRSTWORD_ENGINE__MODEL": str(chat_model_path),
        "FIRSTWORD_RETRIEVAL__EMBEDDER_KIND": "hashing",
        "FIRSTWORD_DATA_DIR": str(tmp_path / "var"),
    }
    first = firstword("ingest", str(knowledge), str(tmp_path / "none.md"), **environment)
    assert_told(first, 1, "broken.md", "none.md", "2 added", "2 failed")
    (knowledge / "broken.md").unlink()
    again = firstword("ingest", str(knowledge), **environment)
    assert_told(again, 0, "0 added", "2 unchanged")


def test_ask_without_a_server_says_how_to_start_one() -> None:
    assert_told(firstword("ask", "Why?", "--url", "http://127.0.0.1:1"), 1, "no server answers", "make serve")


async def test_ask_streams_the_answer_its_sources_and_the_breakdown(make_settings: MakeSettings) -> None:

    async with running(make_settings()) as gateway:
        result = await asyncio.to_thread(
            firstword, "ask", "How many days to return an item?", "--url", gateway.url
        )
    assert result.returncode == 0, result.stderr
    assert "simulated engine" in result.stdout
    assert "returns.md" in result.stderr
    assert "first word after" in result.stderr
    assert "from cache" in result.stderr

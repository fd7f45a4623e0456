"""The clients, and what each of them has no way to do: one entry puts a client through every scenario."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.settings import PROJECT_ROOT

HERE = Path(__file__).parent
VENV = PROJECT_ROOT / "var" / "clients"
PYTHON = VENV / "bin" / "python"
NODE = VENV / "bin" / "node"
NODE_MODULES = HERE / "node" / "node_modules"


@dataclass(frozen=True, slots=True)
class Raises:
    """The classes of a client's own exceptions."""

    bad_request: str
    unauthorized: str
    in_stream: str


OPENAI = Raises("BadRequestError", "AuthenticationError", "APIError")
LANGCHAIN = Raises("OpenAIInvalidRequestError", "OpenAIAuthenticationError", "APIError")
AI_SDK = Raises("AI_APICallError", "AI_APICallError", "AI_StreamProviderError")
BARE = Raises("HttpError", "HttpError", "HttpError")
"""No library: the program's own."""


@dataclass(frozen=True, slots=True)
class Client:
    """A program that takes asks and tells what the client it is written for made of the answers."""

    name: str
    command: tuple[str, ...]
    raises: Raises = OPENAI
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Scenario, or field of what was seen, that the client has not, and why."""
    needs: tuple[Path, ...] = ()

    @property
    def missing(self) -> str | None:
        """What is to be installed before the client can run; None when nothing is."""
        for path in self.needs:
            if not path.exists():
                return f"the client {self.name} is not installed ({path.name} is missing): run `make clients`"
        return None


def _ours(program: str) -> tuple[str, ...]:
    """In the interpreter of the tests."""
    return sys.executable, str(HERE / "python" / program)


def _theirs(program: str) -> tuple[str, ...]:
    """In the clients' own environment."""
    return str(PYTHON), str(HERE / "python" / program)


def _node(program: str, *arguments: str) -> tuple[str, ...]:
    return str(NODE), str(HERE / "node" / program), *arguments


_NO_CHOICES = {"choices": "it asks for one choice"}
_NO_LOGPROBS = {"logprobs": "it does not show them"}
_NO_REASONING = {"reasoning": "it drops reasoning_content"}
_NO_DOCUMENTS = {"documents": "it has no files and vector stores"}
_NO_RETRIES = {"retried": "a page decides for itself"}

CLIENTS = (
    Client("openai-python", _ours("openai_sync.py")),
    Client("openai-python-async", _ours("openai_async.py")),
    Client("openai-python-2", _theirs("openai_sync.py"), needs=(PYTHON,)),
    Client("openai-node", _node("openai.mjs"), needs=(NODE, NODE_MODULES / "openai")),
    Client(
        "ai-sdk-openai",
        _node("ai-sdk.mjs", "openai"),
        AI_SDK,
        _NO_CHOICES | _NO_REASONING | _NO_DOCUMENTS,
        (NODE, NODE_MODULES / "@ai-sdk" / "openai"),
    ),
    Client(
        "ai-sdk-openai-compatible",
        _node("ai-sdk.mjs", "openai-compatible"),
        AI_SDK,
        _NO_CHOICES | _NO_LOGPROBS | _NO_DOCUMENTS,
        (NODE, NODE_MODULES / "@ai-sdk" / "openai-compatible"),
    ),
    Client(
        "langchain",
        _theirs("langchain_client.py"),
        LANGCHAIN,
        _NO_REASONING | _NO_DOCUMENTS | {"firstword": "it drops keys that OpenAI has not"},
        (PYTHON,),
    ),
    Client("llamaindex", _theirs("llamaindex_client.py"), lacks=_NO_CHOICES | _NO_DOCUMENTS, needs=(PYTHON,)),
    Client("curl", _ours("curl_client.py"), BARE, _NO_DOCUMENTS),
    Client("browser", _ours("browser_client.py"), BARE, _NO_RETRIES | _NO_DOCUMENTS),
)

BY_NAME = {client.name: client for client in CLIENTS}


def having(what: str) -> list[str]:
    """The names of the clients that can do it."""
    return [client.name for client in CLIENTS if what not in client.lacks]


def locked_versions(name: str) -> dict[str, str]:
    """Package → version of the lock that the client was installed from; none for the tests' own."""
    if NODE in BY_NAME[name].needs:
        found: dict[str, str] = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
        return found
    if PYTHON in BY_NAME[name].needs:
        lines = (HERE / "python" / "requirements.txt").read_text().splitlines()
        return dict(line.split("==") for line in lines)
    return {}

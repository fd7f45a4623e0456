"""Server processes with a simulated engine, and what a client is told to reach one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from truth import API_KEY, QUESTIONS

from gateways import ServerProcess

RETRY_AFTER_S = 2.5
"""Not what a client would wait of itself: OpenAI's half a second, the AI SDK's two, curl's one."""


class Server(ServerProcess):
    """One that takes a while to be ready, in which others can start."""

    def __init__(self, data_dir: Path, chat_model: Path, knowledge: Path, **settings: Any) -> None:
        defaults = {
            "DATA_DIR": data_dir,
            "AUTH__API_KEYS__ACME": API_KEY,
            "ENGINE__KIND": "simulated",
            "ENGINE__MODEL": chat_model,
            "ENGINE__SIMULATED__TOKEN_INTERVAL_MS": 0.2,
            "ENGINE__TOOL_PARSER": "",  # spares the server its import of vLLM
            "ENGINE__REASONING_PARSER": "",
            "RETRIEVAL__EMBEDDER_KIND": "hashing",
            "RETRIEVAL__MIN_SCORE": -1,
            "RETRIEVAL__SAMPLE_KNOWLEDGE": knowledge,
            "HTTP__SHUTDOWN_GRACE_S": 1,
        }
        super().__init__(
            [], {f"FIRSTWORD_{name}": str(value) for name, value in (defaults | settings).items()}
        )

    def get(self, path: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {API_KEY}"}
        found = httpx.get(self.url + path, headers=headers, timeout=30, trust_env=False)
        return found.raise_for_status()

    @property
    def model(self) -> str:
        name: str = self.get("/v1/models").json()["data"][0]["id"]
        return name

    def metric(self, name: str) -> float:
        """A sample of `/metrics`, by its name with its labels; 0 when there is none yet."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        return 0.0


def job(server: Server, **fields: Any) -> dict[str, Any]:
    """The fields of an ask for one of these servers."""
    return {
        "base_url": server.url + "/v1",
        "api_key": API_KEY,
        "model": server.model,
        "questions": QUESTIONS[:1],
        **fields,
    }

"""Schemathesis reads the published document, makes requests that keep to it and requests that do not, and holds the answers to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.size import FULL, SEED, TIMEOUT_S
from gateways import ServerProcess
from server.settings import PROJECT_ROOT

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SCHEMATHESIS = PROJECT_ROOT / "var" / "fuzz" / "bin" / "schemathesis"
"""In an environment of its own: its dependencies are not ours."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
EXAMPLES_PER_OPERATION = 500 if FULL else 12


def test_the_server_keeps_to_what_it_publishes(fuzzed_server: ServerProcess, tmp_path: Path) -> None:
    if not SCHEMATHESIS.exists():
        pytest.fail("schemathesis is not installed; run `make fuzz-tools`, or the tests through `make test`")
    started_at = time.monotonic()
    ended = subprocess.run(
        [
            *(str(SCHEMATHESIS), "run", fuzzed_server.url + "/openapi.json"),
            *("--checks", ",".join(CHECKS)),
            *(() if FULL else ("--exclude-path-regex", "/v1/(files|vector_stores)")),
            *("--max-examples", str(EXAMPLES_PER_OPERATION)),
            *("--seed", str(SEED)),
            *("--generation-database", "none"),
            *("--request-timeout", "60"),
            *("--warnings", "off"),
            "--no-color",
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        pytest.fail(f"seed {SEED}:\n{ended.stdout[-8_000:]}{ended.stderr[-2_000:]}", pytrace=False)
    generated = next(line.strip() for line in ended.stdout.splitlines() if "generated" in line)
    print(
        f"\nschemathesis, seed {SEED}: {generated} in {time.monotonic() - started_at:.0f} s", file=sys.stderr
    )

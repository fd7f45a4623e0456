"""Targets that are closed with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from target_site import Serve, Site, standing

from server.target.options import TargetOptions


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Site:
            given: dict[str, Any] = {"ttft_ms": 2, "interval_ms": 0, "log": tmp_path / "log.jsonl"} | options
            return await stack.enter_async_context(standing(given["log"], TargetOptions(**given)))

        yield start

"""`python -m bench.salts`: what the wait for the first token tells of another tenant's prompts, on the real engine.

A prompt that was computed under one cache salt is sent again under the same one, under a salt of its own, and beside
them a prompt of the same length that nobody ever sent, in turn. Where salts keep tenants apart, the second and the
third cannot be told apart. About five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from contextlib import aclosing

import numpy as np
from rich.progress import track

from bench.conditions import conditions
from bench.report import Lines, Sheet, keep, open_console, show
from server.engine.embedded import EmbeddedEngine
from server.engine.protocol import GenerateRequest, Sampling
from server.settings import PROJECT_ROOT, load_settings

CHAT_MODEL = PROJECT_ROOT / "var" / "models" / "SmolLM2-135M-Instruct"
PROMPT_TOKENS = 640
FIRST_TOKEN_ID, LAST_TOKEN_ID = 1_000, 20_000
SAME, OTHER, NEVER = "under the same salt", "under another salt", "never sent before"


def draw(number: int) -> list[int]:
    """A prompt like no other from its first block on."""
    source = random.Random(number)
    return [source.randint(FIRST_TOKEN_ID, LAST_TOKEN_ID) for _ in range(PROMPT_TOKENS)]


async def prefill_ms(engine: EmbeddedEngine, request_id: str, prompt: list[int], salt: str) -> float:
    request = GenerateRequest(request_id, prompt, Sampling(max_tokens=1), salt)
    async with aclosing(engine.generate(request)) as stream:
        first = await anext(stream)
        assert first.prefill is not None
        async for _ in stream:
            pass
    return (first.prefill.first_token_at - first.prefill.scheduled_at) * 1_000


async def measure(n_rounds: int) -> dict[str, list[float]]:
    engine = EmbeddedEngine(load_settings(PROJECT_ROOT / "configs" / "default.toml").engine, str(CHAT_MODEL))
    await engine.start()
    took_ms: dict[str, list[float]] = {SAME: [], OTHER: [], NEVER: []}
    known = draw(n_rounds)
    try:
        for _ in range(2):
            await prefill_ms(engine, "known", known, "tenant")
        for number in track(range(n_rounds), "rounds"):
            sent = {
                SAME: (known, "tenant"),
                OTHER: (known, f"guest {number}"),
                NEVER: (draw(number), "guest"),
            }
            for name in random.Random(number).sample(sorted(sent), len(sent)):
                took_ms[name].append(await prefill_ms(engine, f"{number} {name}", *sent[name]))
    finally:
        await engine.close()
    return took_ms


def sheet(took_ms: dict[str, list[float]]) -> Sheet:
    never = float(np.median(took_ms[NEVER]))
    lines: Lines = []
    for name, times_ms in took_ms.items():
        p10, p50, p90 = np.percentile(times_ms, [10, 50, 90])
        lines.append((name, f"{p10:.0f}", f"{p50:.0f}", f"{p90:.0f}", f"{p50 / never:.2f}"))
    title = f"a prompt of {PROMPT_TOKENS} tokens, {len(took_ms[NEVER])} times each"
    return Sheet(title, ("sent", "prefill p10 ms", "p50 ms", "p90 ms", "to never sent"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.salts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    console = open_console()
    before = conditions()
    found = [sheet(asyncio.run(measure(arguments.rounds)))]
    show(console, found, before)
    keep("salts", found, before)


if __name__ == "__main__":
    main()

"""`firstword bench target`: a server whose timing is known, for anyone who wants to check a load tester."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from server.errors import ConfigError

_MOST_MS = 3_600_000.0


def target(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 9_000,
    ttft_ms: Annotated[
        float, typer.Option(min=0.0, help="From a request's last byte to its first token.")
    ] = 50.0,
    interval_ms: Annotated[float, typer.Option(min=0.0, help="Between two tokens of an answer.")] = 10.0,
    tokens: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Length of an answer, unless the request says.")
    ] = 64,
    slots: Annotated[
        int,
        typer.Option(min=1, max=4_096, help="Answers under way at a time; the others queue in the target."),
    ] = 1_024,
    prefill_tokens_per_s: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            show_default="prompts cost nothing",
            help="Compute prompts at this rate, one after the other, ahead of the TTFT.",
        ),
    ] = None,
    block_size: Annotated[int, typer.Option(help="Tokens per block of the prefix cache.")] = 32,
    kv_blocks: Annotated[int, typer.Option(min=1, help="Size of the prefix cache in blocks.")] = 16_384,
    refuse_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of requests that get a 429.")
    ] = 0.0,
    fail_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of requests that get a 500.")
    ] = 0.0,
    cut_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of streams that end half-way, without [DONE].")
    ] = 0.0,
    early_role: Annotated[
        bool,
        typer.Option("--early-role", help="Send the role chunk at once: it is no token, and must not count."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides which requests get a share's fate.")] = 0,
    model: Annotated[str, typer.Option(help="Name in the API.")] = "simulated",
    log: Annotated[
        Path | None, typer.Option(help="Write here when each request came and each answer went, as JSONL.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing once it listens.")] = False,
) -> None:
    """Serve answers of known timing, to check a load tester: see docs/loadtest-target.md."""
    for option, value in (("--ttft-ms", ttft_ms), ("--interval-ms", interval_ms)):
        if not value <= _MOST_MS:
            raise ConfigError(
                f"{option} {value}: expected milliseconds, an hour at most",
                next_step="leave it out for the default",
            )
    if prefill_tokens_per_s is not None and not prefill_tokens_per_s > 0:
        raise ConfigError(
            f"--prefill-tokens-per-s {prefill_tokens_per_s}: expected a rate above 0",
            next_step="leave it out, and prompts cost nothing",
        )
    if block_size not in range(16, 257, 16):
        raise ConfigError(
            f"--block-size {block_size}: expected a multiple of 16 up to 256", next_step="leave it out for 32"
        )
    if not refuse_share + fail_share + cut_share <= 1:
        raise ConfigError(
            f"--refuse-share, --fail-share and --cut-share add up to {refuse_share + fail_share + cut_share:g}",
            next_step="let them add up to 1 at most",
        )
    if not (model.isascii() and model.isprintable() and model):
        raise ConfigError(f"--model {model!r}: expected printable ASCII", next_step="choose a plain name")
    from server.target.options import TargetOptions
    from server.target.run import run

    options = TargetOptions(
        ttft_ms=ttft_ms,
        interval_ms=interval_ms,
        tokens=tokens,
        slots=slots,
        prefill_tokens_per_s=math.inf if prefill_tokens_per_s is None else prefill_tokens_per_s,
        block_size=block_size,
        kv_blocks=kv_blocks,
        refuse_share=refuse_share,
        fail_share=fail_share,
        cut_share=cut_share,
        early_role=early_role,
        seed=seed,
        model=model,
        log=log,
    )

    def announce(url: str) -> None:
        if not quiet:
            typer.echo(
                f"target on {url}: TTFT {ttft_ms:g} ms, a token every {interval_ms:g} ms, {tokens} tokens, {slots} slots"
            )

    run(options, host, port, announce)

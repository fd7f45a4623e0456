"""The options of `firstword bench run`, as the command line declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_WORKLOAD = "Workload"
_LOAD = "Load"
_TARGET = "Target"
_JUDGEMENT = "Judgement"
_OUTPUT = "Reports"

WorkloadFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[WORKLOAD]",
        help="Questions (.txt), conversations or a trace (.jsonl), ShareGPT (.json). Left out with --synthetic.",
        show_default=False,
    ),
]
Url = Annotated[
    str, typer.Option(help="The server, up to where /chat/completions follows.", rich_help_panel=_TARGET)
]
Model = Annotated[
    str | None,
    typer.Option(help="The model to ask for; else the first that the server lists.", rich_help_panel=_TARGET),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        min=1, help="Longest reply to ask for; else the server's own limit.", rich_help_panel=_TARGET
    ),
]
Body = Annotated[
    str | None,
    typer.Option(
        help="More fields of every request, a JSON object: '{\"temperature\": 0}'.", rich_help_panel=_TARGET
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        min=0.001,
        max=86_400,
        help="Seconds a whole turn may take, its waits included.",
        rich_help_panel=_TARGET,
    ),
]
FreshConnections = Annotated[
    bool,
    typer.Option("--fresh-connections", help="A new connection for every turn.", rich_help_panel=_TARGET),
]

Kind = Annotated[
    Literal["auto", "questions", "conversations", "sharegpt", "trace"],
    typer.Option(help="What the file holds; auto: as it looks.", rich_help_panel=_WORKLOAD),
]
Synthetic = Annotated[
    str | None,
    typer.Option(
        help="Made up instead of read: 'conversations=100,turns=4,prompt=lognormal(120,0.4),output=64,shared_prefix=400'.",
        rich_help_panel=_WORKLOAD,
    ),
]
Conversations = Annotated[
    int | None,
    typer.Option(
        min=1, help="Begin so many; else each of the workload once, or --duration.", rich_help_panel=_WORKLOAD
    ),
]
Popularity = Annotated[
    str | None,
    typer.Option(
        help="Draw conversations: 'uniform' or 'zipf(1.1)'; else in order.", rich_help_panel=_WORKLOAD
    ),
]
Think = Annotated[
    str | None,
    typer.Option(
        help="Seconds between a reply and the user's next turn: '2', '1..5', 'exponential(3)'.",
        rich_help_panel=_WORKLOAD,
    ),
]
TypeAheadWpm = Annotated[
    float | None,
    typer.Option(
        "--type-ahead", min=1, max=1_000, metavar="WPM",
        help="Type each question at so many words per minute, and send what is typed to …/chat/prewarm.",
        rich_help_panel=_WORKLOAD,
    ),
]  # fmt: skip
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.", rich_help_panel=_WORKLOAD)]

Concurrency = Annotated[
    str | None,
    typer.Option(
        help="Closed loop: conversations held at a time. '1,4,16' runs a stage for each.  [default: 1]",
        rich_help_panel=_LOAD,
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Open loop: conversations begun per second. '1,2,4' runs a stage for each.",
        rich_help_panel=_LOAD,
    ),
]
FindRate = Annotated[
    bool,
    typer.Option(
        "--find-rate",
        help="Search upwards from --rate for the highest that meets --slo.",
        rich_help_panel=_LOAD,
    ),
]
ArrivalsOption = Annotated[
    Literal["poisson", "constant", "gamma", "trace"],
    typer.Option("--arrivals", help="How arrivals of an open loop are spread.", rich_help_panel=_LOAD),
]
Burstiness = Annotated[
    float,
    typer.Option(help="Of gamma arrivals: 1 is Poisson, lower is burstier.", rich_help_panel=_LOAD),
]
Speed = Annotated[
    float, typer.Option(help="Of a trace: 2 replays it in half the time.", rich_help_panel=_LOAD)
]
MaxConcurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Open loop: turns under way at a time. Others wait, and their clocks run.",
        rich_help_panel=_LOAD,
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        min=0.1, help="No turn begins after so many seconds; open ones are waited for.", rich_help_panel=_LOAD
    ),
]
Warmup = Annotated[
    int,
    typer.Option(
        min=0, help="Hold the workload's first so many conversations before measuring.", rich_help_panel=_LOAD
    ),
]
WarmupSeconds = Annotated[
    float,
    typer.Option(min=0, help="Leave a stage's first seconds out of all figures.", rich_help_panel=_LOAD),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1, max=256, help="Measuring processes; else up to half of the cores.", rich_help_panel=_LOAD
    ),
]
BusyPoll = Annotated[
    bool,
    typer.Option(
        "--busy-poll",
        help="Measuring processes never sleep: no wake-ups in the figures, at a core for each.",
        rich_help_panel=_LOAD,
    ),
]

SloOption = Annotated[
    str | None,
    typer.Option(
        "--slo",
        help="Bounds that decide the exit code: 'ttft_p99<500ms,error_rate<0.1%'.",
        rich_help_panel=_JUDGEMENT,
    ),
]
Goodput = Annotated[
    str | None,
    typer.Option(
        help="Bounds that make a turn count as good: 'ttft<500ms,tpot<50ms'.", rich_help_panel=_JUDGEMENT
    ),
]

JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write every turn and all figures.", rich_help_panel=_OUTPUT)
]
CsvFile = Annotated[
    Path | None, typer.Option("--csv", help="Write a row for each turn.", rich_help_panel=_OUTPUT)
]
HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", help="Write one page with plots, to look at.", rich_help_panel=_OUTPUT),
]

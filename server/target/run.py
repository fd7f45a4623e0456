"""Runs a target until SIGTERM or SIGINT, which end it cleanly: running streams are cut, the log is complete."""

from __future__ import annotations

import asyncio
import errno
import gc
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvloop

from server.errors import PortInUse
from server.target.log import Log
from server.target.options import TargetOptions
from server.target.server import Target

_BACKLOG = 4_096


def run(options: TargetOptions, host: str, port: int, announce: Callable[[str], None]) -> None:
    """`announce` is called with the URL once requests are answered. Raises `PortInUse` or `ConfigError`."""
    with listen(host, port) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, listener, host, announce))


async def _serve(
    options: TargetOptions, listener: socket.socket, host: str, announce: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log = Log(options.log, loop)
    _allow_many_connections()
    target = Target(options, listener, log)
    # A collection would hold tokens up for milliseconds. Requests and connections leave no cycles behind, so
    # nothing grows for the lack of one.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        announce(_url(host, listener.getsockname()[1]))
        await stop.wait()
    finally:
        await target.close()
        log.close()


def listen(host: str, port: int) -> socket.socket:
    """Raises `PortInUse`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise PortInUse(
            f"cannot listen on {host}:{port}: {reason}",
            next_step="choose another with `--port` (0 takes a free one) or `--host`, or stop that program",
        ) from None
    listener.setblocking(False)
    return listener


def _allow_many_connections() -> None:
    """As many as the system lets this process have: the usual soft limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS names no limit and then does not take it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - shown
    return f"http://{shown}:{port}"

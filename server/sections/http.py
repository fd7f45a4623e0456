"""The listening socket and its pace."""

from __future__ import annotations

from pydantic import Field

from server.sections.section import Section


class HttpSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs `auth.api_keys` or `auth.allow_anonymous`."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    heartbeat_s: float = Field(10.0, gt=0, le=15)
    """A silent stream gets a comment this often, before its first token too."""
    send_timeout_s: float = Field(30.0, gt=0, le=600)
    """A reader that takes nothing for this long is cut off."""
    write_buffer_bytes: int = Field(16_384, ge=1_024, le=16_777_216)
    """Bytes that may wait for a slow reader; beyond them its tokens are merged into one frame until it reads."""
    header_timeout_s: float = Field(10.0, gt=0, le=600)
    """A connection that has not finished a request's headers for this long is closed."""
    body_timeout_s: float = Field(30.0, gt=0, le=600)
    """A body that has not come whole in this time is answered with 408."""
    max_connections: int = Field(4_096, ge=1, le=1_000_000)
    """Most open connections; further ones are told so and closed."""
    shutdown_grace_s: float = Field(10.0, ge=0, le=600)
    """Running streams may finish for this long after SIGTERM."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser; none by default."""

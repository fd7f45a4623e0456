"""Where a server is, and whether it answers at all."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import msgspec

from loadtest.errors import TargetError

_PREFLIGHT_S = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """A server, up to where `/chat/completions` follows: `path` is `/v1` or the like, without a slash at its end."""

    host: str
    port: int
    is_tls: bool
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode()
        default = 443 if self.is_tls else 80
        return host if self.port == default else f"{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Raises `TargetError` if no request could be sent to it."""
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url)
        host = parts.hostname or ""
        host.encode("idna" if ":" not in host else "ascii")
    except (ValueError, httpx.InvalidURL) as error:
        raise TargetError(f"--url: {error}. Give one like http://127.0.0.1:8000/v1.") from error
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.query
        or parts.fragment
        or not parts.path.isascii()
    ):
        raise TargetError(f"--url {url!r} is not a server's address. Give one like http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise TargetError(
            "--url holds a user name or password, which reports would repeat. Set FIRSTWORD_API_KEY instead."
        )
    is_tls = parts.scheme == "https"
    return Address(host, port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))


async def resolve(address: Address) -> list[str]:
    """The server's IP addresses, looked up once: a resolver is not what is measured. Raises `TargetError`."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(
            f"{address.host} cannot be resolved ({error}). Correct --url, or the name service."
        ) from error
    return list(dict.fromkeys(str(info[4][0]) for info in found))


async def find_model(url: str, api_key: str | None, wanted: str | None) -> str:
    """The wanted model, or the first that the server lists. Raises `TargetError` if the server does not answer.

    With a model named, any answer will do: not every server lists its models.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        # Trusts whom the turns' connections trust; httpx alone would bring authorities of its own.
        trusted = ssl.create_default_context()
        async with httpx.AsyncClient(
            headers=headers, timeout=_PREFLIGHT_S, trust_env=False, verify=trusted
        ) as client:
            response = await client.get(f"{url.rstrip('/')}/models")
    except (httpx.HTTPError, UnicodeError) as error:
        reason = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise TargetError(
                f"{url}: its certificate is not trusted ({reason}). Name your authority's file in SSL_CERT_FILE."
            ) from error
        if "SSL" in reason or "TLS" in reason:
            raise TargetError(
                f"{url} does not speak TLS as it should ({reason}). Is it http:// instead of https://?"
            ) from error
        raise TargetError(f"{url} does not answer ({reason}). Start the server or correct --url.") from error
    if response.status_code in (401, 403):
        raise TargetError(
            f"{url} refuses the API key ({response.status_code}). Set FIRSTWORD_API_KEY or OPENAI_API_KEY to a valid one."
        )
    if wanted:
        return wanted
    try:
        return _decode_models(response.content).data[0].id
    except (ValueError, IndexError) as error:
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise TargetError(
            f"{url}/models answered {response.status_code} ({kind}) and names no model. "
            "Name one with --model, and check that --url ends where /models follows (often in /v1)."
        ) from error


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_decode_models = msgspec.json.Decoder(_Models).decode

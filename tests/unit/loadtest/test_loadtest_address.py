"""Where the target is, whether it answers, and what is said when it does not."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from loadtest_made import ask_one
from loadtest_standin import Exchange, StandIn, always, by_path, json_answer, replying, serving

from loadtest.client.address import Address, find_model, parse_url, resolve
from loadtest.errors import TargetError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("http://h/v1", Address("h", 80, False, "/v1"), "h"),
        ("https://h/v1/", Address("h", 443, True, "/v1"), "h"),
        ("http://h:8000", Address("h", 8000, False, ""), "h:8000"),
        ("https://h:80/a/b", Address("h", 80, True, "/a/b"), "h:80"),
        ("http://[::1]:81/v1", Address("::1", 81, False, "/v1"), "[::1]:81"),
        ("http://bücher.test/v1", Address("bücher.test", 80, False, "/v1"), "xn--bcher-kva.test"),
    ],
)
def test_an_address_is_taken_apart(url: str, address: Address, authority: str) -> None:
    assert parse_url(url) == address
    assert address.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000/v1",
        "ftp://h/v1",
        "http://",
        "http://h:port/v1",
        "http://h:99999/v1",
        "http://h/v1?key=x",
        "http://h/v1#x",
        "http://h/vé",
        "http://[::1/v1",
        f"http://{'a' * 70}.test/v1",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(TargetError, match=r"Give one like http://127\.0\.0\.1:8000/v1"):
        parse_url(url)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(TargetError) as caught:
        parse_url("http://me:hunter2@h/v1")
    assert "hunter2" not in str(caught.value)


async def test_the_first_model_is_found_and_a_named_one_taken(standin: StandIn) -> None:
    assert await find_model(standin.url_of("plain"), None, None) == "first"
    assert await find_model(standin.url_of("plain") + "/", None, None) == "first"
    assert await find_model(standin.url_of("html"), None, "mine") == "mine"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("html", r"/models answered 200 \(text/html\) and names no model\. Name one with --model"),
        ("empty", r"/models answered 200 \(application/json\) and names no model"),
        ("unauthorized", r"refuses the API key \(401\)\. Set FIRSTWORD_API_KEY or OPENAI_API_KEY"),
    ],
)
async def test_a_target_that_is_none_is_named(standin: StandIn, behaviour: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        await find_model(standin.url_of(behaviour), None, None)


async def test_the_key_is_sent_and_a_refused_one_is_no_reason_to_begin() -> None:
    seen = []

    async def script(exchange: Exchange) -> None:
        seen.append(exchange.headers.get("authorization"))
        await exchange.send(json_answer({"data": [{"id": "m"}]}, 403 if len(seen) > 1 else 200))

    async with serving(script) as server:
        await find_model(server.url, "sk-x", None)
        with pytest.raises(TargetError, match="403"):
            await find_model(server.url, None, "named")
    assert seen == ["Bearer sk-x", None]


async def test_nothing_there_is_named(dead_url: str) -> None:
    with pytest.raises(TargetError, match=r"does not answer .*Start the server or correct --url"):
        await find_model(dead_url, None, "mine")


async def test_what_speaks_no_http_is_named() -> None:
    async with serving(always(b"220 ready\r\n", then="close")) as server:
        with pytest.raises(TargetError, match="does not answer"):
            await find_model(server.url, None, "mine")


async def test_a_name_that_does_not_resolve_is_named() -> None:
    address = parse_url("http://no-such-host.invalid/v1")
    with pytest.raises(TargetError, match=r"no-such-host\.invalid cannot be resolved .*Correct --url"):
        await resolve(address)
    with pytest.raises(TargetError, match="does not answer"):
        await find_model("http://no-such-host.invalid/v1", None, "mine")


async def test_an_address_in_numbers_resolves_to_itself() -> None:
    assert await resolve(parse_url("http://127.0.0.1:8000/v1")) == ["127.0.0.1"]
    assert await resolve(parse_url("http://[::1]:8000/v1")) == ["::1"]


async def test_tls_against_a_plain_port_asks_whether_it_is_http() -> None:
    async with serving(always(json_answer({}))) as server:
        with pytest.raises(TargetError, match=r"does not speak TLS .*http:// instead of https://"):
            await find_model(server.url.replace("http", "https", 1), None, "mine")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the command openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(tls: ssl.SSLContext) -> None:
    async with serving(by_path, tls) as server:
        with pytest.raises(TargetError, match=r"not trusted .*Name your authority's file in SSL_CERT_FILE"):
            await find_model(server.url_of("plain"), None, None)
        turn = await ask_one(server.url_of("plain"))
    assert turn.outcome == "connection"
    assert turn.detail is not None
    assert "CERTIFICATE_VERIFY_FAILED" in turn.detail


async def test_with_its_authority_in_ssl_cert_file_a_certificate_is_trusted(
    tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with serving(by_path, tls) as server:
        assert await find_model(server.url_of("plain"), None, None) == "first"
        turn = await ask_one(server.url_of("plain"))
        assert (turn.outcome, turn.detail) == ("ok", None)
        assert turn.connect_ms is not None
        assert turn.ttfb_ms is not None
        assert 0 < turn.connect_ms < turn.ttfb_ms
        assert turn.output_tokens == 5


async def test_turns_over_tls_against_a_plain_port_fail_one_by_one() -> None:
    async with serving(replying) as server:
        turn = await ask_one(server.url.replace("http", "https", 1), timeout_s=10.0)
    assert (turn.outcome, turn.status) == ("connection", None)


async def test_proxies_of_the_environment_are_not_used(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert await find_model(standin.url_of("plain"), None, None) == "first"

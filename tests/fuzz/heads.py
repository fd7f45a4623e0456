"""Inputs whose request line or headers are wrong, or right in an unusual way."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fuzz.case import CHAT, Case, cut, post, request
from fuzz.framing import HOST
from fuzz.seeds import a_body, a_path, encode

_CONTROLS = bytes([*range(32), 127])
_MALFORMED = [
    b"X-A : b", b" X-A: b", b": b", b"X-A", b"X-A: \xc3\xa9\xff", b"X-\xc3\x84: b", b"X-A: " + b"\t " * 20,
    b'X-"A": b', b"Authorization:", b"Authorization: Bearer", b"Authorization: Bearer \xff",
    b"Authorization: Basic x", b"Authorization: Bearer " + b"k" * 9_000, b"Content-Type: text/plain",
    b"Content-Type: application/json; charset=utf-16", b"Content-Type: \xff", b"Accept: text/html",
    b"Accept: " + b"*" * 9_000, b"Origin: null", b"Traceparent: \xff", b"X-Request-Id: a\tb",
]  # fmt: skip
_FOLDED = [b"X-A: a%bb", b"Host:%bfirstword", b"Content-Length:%b5", b"X%b-A: b"]
_PATHS = [
    b"/", b"/v1/models/", b"/v1/turns/", b"/v1/passages/", b"/assets/", b"/assets/vendor/", CHAT,
    b"/v1/turns?limit=",
]  # fmt: skip
_PIECES = [
    b"%00", b"%ff%fe", b"%ed%a0%80", b"%", b"%zz", b"%2e%2e%2f", b"..", b"%2f", b"%25", b"%0d%0aX-A:%20b",
    b"\xc3\xa9", b"\xff", b"\x00", b"\t", b" ", b"#a", b"?", b"??", b";a=b", b"\\", b"{}", b"%u0041", b"*",
    b"%F0%9F%91%8B", b"a" * 1_000, b"a" * 20_000, b"a" * 32_000, b"//", b"/" * 1_000,
]  # fmt: skip
_HOSTS = [b"firstword", b"", b"[", b"a:b:c", b"a@b", b"\xff", b"[::1]", b"a" * 5_000, b"firstword:99999"]
_LIMITS = [
    b"1", b"200", b"201", b"0", b"-1", b"1.0", b"%D9%A3", b"%C2%B2", b"+5", b"", b"%00", b"1%00", b"9" * 19,
    b"9" * 4_300, b"9" * 4_301, b"9" * 20_000, b"1&limit=2", b"\xb2", b"0x1", b"1e1", b"%ff",
]  # fmt: skip
_BEFORE = [b"", b"&before=", b"&before=%00", b"&before=turn_x", b"&before=%27%22;--", b"&before=%ed%a0%80"]
_METHODS = [
    b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"DELETE", b"PATCH", b"PUT", b"QUERY", b"PROPFIND", b"get",
    b"GETT", b"POST", b"G" * 5_000, b"\xff", b"GET\x00", b"SOURCE", b"M-SEARCH", b"PRI",
]  # fmt: skip
_VERSIONS = [
    b"HTTP/1.0", b"HTTP/2.0", b"HTTP/3", b"HTTP/1.1x", b"HTTP/0.9", b"HTTP/1.10", b"http/1.1", b"HTTP/",
    b"HTTP/9.9", b"ICE/1.0",
]  # fmt: skip
_OTHER_PROTOCOLS = [
    b"GET /health/live\r\n\r\n",
    b"GET /health/live\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 200,
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x05\x01\x00",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request(),
]
_UPGRADES = [b"websocket", b"h2c", b"TLS/1.0", b"", b"\xff"]
_CONNECTIONS = [b"Upgrade", b"keep-alive, Upgrade", b"upgrade, HTTP2-Settings", b"close"]
_RANGES = [
    b"Range: bytes=0-0", b"Range: bytes=0-", b"Range: bytes=-1", b"Range: bytes=x", b"Range: bytes=99999999-",
    b"Range: bytes=5-2", b"Range: bytes=0-1,3-4", b"Range: items=0-1", b"Range:", b"Range: bytes=-",
    b"Range: \xff", b"Range: bytes=" + b"0-0," * 5_000, b"If-Range: x", b"If-None-Match: *",
    b"If-Modified-Since: x", b"If-Modified-Since: \xff", b'If-None-Match: "\xff"',
]  # fmt: skip


def doubled(source: Random) -> Case:
    body = encode(a_body(source))
    more = [
        b"Content-Length: %d" % source.choice((len(body), len(body) + 1, 0)),
        *(HOST, b"Host: other", b"Content-Type: text/plain", b"Authorization: Bearer x"),
        *(b"Expect: 100-continue", b"Connection: close, keep-alive", b"Transfer-Encoding: identity"),
    ]
    return Case("headers doubled", (post(body, *source.choices(more, k=source.randint(1, 4))),))


def too_large(source: Random) -> Case:
    size = source.choice((1_000, 30_000, 33_000, 100_000))
    fill = b"y" * size
    match source.randrange(5):
        case 0:
            headers = [b"X-Fill: " + fill]
        case 1:
            headers = [fill + b": z"]
        case 2:
            headers = [b"X-%d: %b" % (number, fill[:100]) for number in range(size // 100)]
        case 3:
            return Case("headers too large", (request(b"/" + fill),))
        case _:
            headers = [b"a:"] * (size // 4)
    whole = request(a_path(source), (HOST, *headers))
    return Case("headers too large", cut(source, whole[: source.choice((len(whole), size))], 3))


def folded(source: Random) -> Case:
    header = source.choice(_FOLDED) % source.choice((b"\r\n ", b"\r\n\t", b"\n ", b"\r "))
    return Case("headers folded", (request(a_path(source), (HOST, header)),))


def malformed(source: Random) -> Case:
    control = bytes([source.choice(_CONTROLS)])
    header = source.choice((b"X-A: a" + control + b"b", b"X" + control + b"A: b", *_MALFORMED))
    if source.random() < 0.5:
        return Case("headers malformed", (post(b"{}", header),))
    return Case("headers malformed", (request(a_path(source), (HOST, header)),))


def paths(source: Random) -> Case:
    base, piece = source.choice(_PATHS), source.choice(_PIECES)
    targets = (base + piece, piece + base, b"http://other" + base + piece, b"//other" + base, base + b"/")
    target = source.choice((*targets, b"http://", b"other:443", b"*"))
    return Case("paths", (request(target, (b"Host: " + source.choice(_HOSTS),)),))


def queries(source: Random) -> Case:
    target = b"/v1/turns?limit=" + source.choice(_LIMITS) + source.choice(_BEFORE)
    return Case("queries", (request(target),))


def methods(source: Random) -> Case:
    preflight = (HOST, b"Origin: http://a", b"Access-Control-Request-Method: POST")
    headers = source.choice(((HOST,), preflight))
    return Case("methods", (request(a_path(source), headers, method=source.choice(_METHODS)),))


def versions(source: Random) -> Case:
    data = source.choice((request(version=source.choice(_VERSIONS)), source.choice(_OTHER_PROTOCOLS)))
    return Case("versions", cut(source, data, 2))


def upgrades(source: Random) -> Case:
    headers = (
        b"Connection: " + source.choice(_CONNECTIONS),
        b"Upgrade: " + source.choice(_UPGRADES),
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    )
    if source.random() < 0.5:
        return Case("upgrades", (request(a_path(source), (HOST, *headers)), source.randbytes(20)))
    return Case("upgrades", (post(encode(a_body(source)), *headers),))


def ranges(source: Random) -> Case:
    path = source.choice((b"/", b"/assets/app.js", b"/assets/mark.svg", b"/health/live"))
    headers = (HOST, *source.sample(_RANGES, source.choice((1, 2))))
    return Case("ranges", (request(path, headers, method=source.choice((b"GET", b"GET", b"HEAD"))),))


KINDS: tuple[Callable[[Random], Case], ...] = (
    doubled,
    too_large,
    folded,
    malformed,
    paths,
    queries,
    methods,
    versions,
    upgrades,
    ranges,
)

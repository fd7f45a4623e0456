"""Inputs whose bytes are wrong, or right in an unusual way, before any header is looked at for what it says."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fuzz.case import CHAT, CRLF, SMUGGLED, Case, cut, post, request
from fuzz.seeds import a_body, a_path, a_request, encode

HOST = b"Host: firstword"

_CODINGS = [
    b"chunked", b"Chunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked",
    b"\x0bchunked", b"chunked\x00", b"chunked;q=1", b"", b"chunked,", b", chunked", b"chun\tked",
]  # fmt: skip
_CODING_HEADERS = [
    b"Transfer-Encoding: ",
    b"transfer-encoding:",
    b"Transfer-Encoding : ",
    b"Transfer-Encoding:\n ",
]
_LENGTHS = [
    b"", b" ", b"x", b"5, 5", b"0x10", b"1e3", b"+5", b"1_0", b"\xd9\xa3", b"\xb2", b"-1", b"0", b"9" * 5_000,
    b"1000000", b"1000001", b"2147483648", b"9223372036854775808", b"18446744073709551616", b"1" + b"0" * 30,
]  # fmt: skip
_CHUNK_SIZES = [
    b"-1", b"0x5", b"g", b"", b" 5", b"5 ", b"+5", b"F" * 16, b"F" * 17, b"1" + b"0" * 16, b"5;" + b"a" * 9_000,
    b"5\x00", b"5\n", b"\xb2", b"5;a\nb", b"7fffffffffffffff",
]  # fmt: skip
_EXPECTATIONS = [b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue, x"]


def bits_flipped(source: Random) -> Case:
    data = bytearray(a_request(source))
    for _ in range(source.randint(1, 8)):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return Case("bits flipped", (bytes(data),))


def cut_short(source: Random) -> Case:
    data = a_request(source)
    return Case("cut short", cut(source, data[: source.randrange(1, len(data))], 2))


def pieces_moved(source: Random) -> Case:
    data = a_request(source)
    for _ in range(source.randint(1, 4)):
        start, end = sorted(source.randrange(len(data) + 1) for _ in range(2))
        piece = data[start:end][: source.choice((3, 30, 300))]
        match source.randrange(4):
            case 0:
                data = data[:start] + data[end:]
            case 1:
                data = data[:end] + piece * source.randint(1, 5) + data[end:]
            case 2:
                data = data[:start] + source.randbytes(source.randint(1, 20)) + data[start:]
            case _:
                other = a_request(source)
                data = data[:start] + other[source.randrange(len(other)) :]
        data = data or b"x"
    return Case("pieces moved", cut(source, data, 2))


def noise(source: Random) -> Case:
    alphabet = source.choice((bytes(range(256)), b"GET /HTTP1.:\r\n \t", b"\r\n", b"\x00\xff"))
    data = bytes(source.choices(alphabet, k=source.choice((1, 10, 100, 5_000))))
    return Case("noise", cut(source, data, 3))


def line_ends(source: Random) -> Case:
    end = source.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x85", b"\r\n\x00"))
    data = a_request(source)
    if source.random() < 0.5:
        data = data.replace(CRLF, end, source.choice((1, 2, -1)))
    else:
        data = source.choice((CRLF, b"\n", b" ", b"\r\n" * 50, b"\xef\xbb\xbf")) + data
    return Case("line ends", (data,))


def lengths(source: Random) -> Case:
    body = encode(a_body(source))
    right = len(body)
    near = [b"%d" % wrong for wrong in (right - 1, right + 1, right * 2)]
    twice = [b"%d, %d" % (right, right), b"0" * 500 + b"%d" % right]
    header = source.choice((b"Content-Length: ", b"content-length:", b"Content-Length:\t"))
    header += source.choice([*near, *twice, *_LENGTHS])
    return Case("lengths", (request(CHAT, (HOST, header), method=b"POST", body=body),))


def encodings(source: Random) -> Case:
    """Two framings at once, of which the wrong one would make a request of the body."""
    hidden = request(SMUGGLED)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    headers = [HOST, source.choice(_CODING_HEADERS) + source.choice(_CODINGS)]
    if source.random() < 0.7:
        length = source.choice((0, 4, len(chunked), 100_000))
        headers.insert(source.randrange(3), b"Content-Length: %d" % length)
    if source.random() < 0.2:
        headers.append(b"Transfer-Encoding: " + source.choice((b"chunked", b"identity")))
    version = source.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"))
    whole = request(CHAT, tuple(headers), method=b"POST", version=version, body=chunked)
    return Case("encodings", (whole,))


def chunks(source: Random) -> Case:
    """Chunked as it should be: extensions, trailers, leading zeros, any sizes."""
    pieces = [piece for piece in cut(source, encode(a_body(source)), 12) if piece]
    sizes = (b"%x", b"%X", b"000%x", b"%x;a=b", b'%x;a="b c"')
    coded = [source.choice(sizes) % len(piece) + CRLF + piece + CRLF for piece in pieces]
    trailer = source.choice((b"", b"", b"X-Trailer: a\r\n"))
    body = b"".join(coded) + source.choice((b"0", b"000")) + CRLF + trailer + CRLF
    whole = request(CHAT, (HOST, b"Transfer-Encoding: chunked"), method=b"POST", body=body)
    return Case("chunks", cut(source, whole), answers=1)


def chunks_malformed(source: Random) -> Case:
    content = source.choice((b"{}   ", b"{", b"x" * 40)) + CRLF
    body = source.choice(_CHUNK_SIZES) + source.choice((CRLF, b"\n", b"\r")) + content + b"0\r\n\r\n"
    whole = request(CHAT, (HOST, b"Transfer-Encoding: chunked"), method=b"POST", body=body)
    return Case("chunks malformed", cut(source, whole, 2))


def pipelined(source: Random) -> Case:
    """Many whole requests in one go; each is answered, in order."""
    n_requests = source.choice((2, 5, 40))
    size = source.choice((1, 1, 10_000, 45_000)) if n_requests < 40 else 1
    body = encode({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "metadata": "m" * size})
    whole = b"".join(source.choice((request(a_path(source)), post(body))) for _ in range(n_requests))
    if source.random() < 0.3:
        return Case("pipelined", cut(source, whole + source.choice((b"GET", b"\x00\x01", b"\r\n\r\n"))))
    return Case("pipelined", cut(source, whole), answers=n_requests)


def expectations(source: Random) -> Case:
    body = encode(a_body(source))
    whole = post(body, b"Expect: " + source.choice(_EXPECTATIONS))
    head = len(whole) - len(body)
    return Case("expectations", (whole[:head], whole[head:]), answers=1)


def slow(source: Random) -> Case:
    """Byte by byte."""
    body = encode({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1})
    data = source.choice((request(a_path(source)), post(body)))
    return Case("slow", tuple(data[at : at + 1] for at in range(len(data))), answers=1)


KINDS: tuple[Callable[[Random], Case], ...] = (
    bits_flipped,
    cut_short,
    pieces_moved,
    noise,
    line_ends,
    lengths,
    encodings,
    chunks,
    chunks_malformed,
    pipelined,
    expectations,
    slow,
)

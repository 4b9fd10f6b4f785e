"""Requests whose end two servers could see at different places: no text of a body is ever carried out as a request."""

import asyncio
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.simulators.house import DEV_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN: Final = "GET /auth/me HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer " + DEV_KEY + "\r\n\r\n"
HEAD: Final = "POST /auth/link HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
SIZE: Final = "{size}"
"""The bytes of the hidden request, in decimal; `{hex}` is the same in hexadecimal."""

CODINGS: Final = [
    *(
        "chunked",
        "xchunked",
        "chunked, identity",
        "identity",
        "chunked, chunked",
        "gzip, chunked",
        "Chunked",
        '"chunked"',
    ),
    *(
        "chunked;q=1",
        "chunked ,",
        ", chunked",
        "\tchunked",
        "\x0bchunked",
        "chunked\x0c",
        "chunked\x00",
        "x\r\n chunked",
    ),
]
NAMES: Final = [
    *(
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "X: y\nTransfer-Encoding",
        "Transfer_Encoding",
    ),
    *(
        "X: y\rTransfer-Encoding",
        "Transfer-Encoding\x00",
        "\x00Transfer-Encoding",
        "TRANSFER-ENCODING",
        "Transfer-Encoding:",
    ),
]
LENGTHS: Final = [
    *(
        "0\r\nContent-Length: {size}",
        "{size}\r\nContent-Length: 0",
        "0, {size}",
        "{size}, 0",
        "+0",
        "-0",
        "0x0",
        "0 {size}",
    ),
    *(
        "{size}.0",
        "{size}e0",
        "0b0",
        "{size}\x00",
        "\x0b0",
        "18446744073709551616",
        "",
        "zero",
        "{size}\r\n 0",
        "0;{size}",
    ),
]
CHUNKS: Final = [
    *(
        "0x{hex}",
        "+{hex}",
        "-{hex}",
        " {hex}",
        "{hex} 0",
        "{hex}\x00",
        "{hex}\n",
        "g",
        "",
        "{hex}h",
        "1{hex}0000000000000000",
    ),
    *("0;{hex}\n", "{hex};a=\n", "{hex}\r", "0_{hex}", '{hex};a="\r\n0\r\n\r\n"'),
]
LINES: Final = [
    *(
        "GET /auth/link HTTP/1.1 HTTP/1.1",
        "GET  /auth/link HTTP/1.1",
        "GET /auth/link HTTP/1.1\r",
        "GET\t/auth/link\tHTTP/1.1",
    ),
    *(
        "GET /auth/link",
        "GET /auth/link HTTP/0.9",
        "GET /auth/link HTTP/2.0",
        "PRI * HTTP/2.0",
        "GET /auth/link http/1.1",
    ),
    *(
        "GET /auth/link HTTP/1.1\r\nX: y\r\n :",
        "GET /auth/link HTTP/1.1\r\nno colon",
        "GET /auth/link HTTP/1.1\r\n: empty",
    ),
    *("GET /auth/link HTTP/1.1\nX: y", "CONNECT evil.example:443 HTTP/1.1", "GET /auth/link HTTP/1.1\r\nX Y: z"),
]
TO_BOTH: Final = f"{HEAD}Content-Length: {{all}}\r\n%s\r\n\r\n0\r\n\r\n{HIDDEN}"
"""A length that spans the hidden request, and a coding that ends before it."""
WITH: Final = f"{HEAD}%s\r\nContent-Length: {SIZE}\r\n\r\n{HIDDEN}"
IN_CHUNKS: Final = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n%s\r\n{HIDDEN}\r\n0\r\n%s\r\n"
FRAMINGS: Final = {
    **{f"coding {coding!r}": TO_BOTH % f"Transfer-Encoding: {coding}" for coding in CODINGS},
    **{f"name {name!r}": TO_BOTH % f"{name}: chunked" for name in NAMES},
    **{f"length {length!r}": f"{HEAD}Content-Length: {length}\r\n\r\n{HIDDEN}" for length in LENGTHS},
    **{f"chunk {chunk!r}": IN_CHUNKS % (chunk, "") for chunk in CHUNKS},
    **{f"line {line!r}": f"{line}\r\nHost: {{host}}\r\nContent-Length: {SIZE}\r\n\r\n{HIDDEN}" for line in LINES},
    "body of a GET": f"GET /livez HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {SIZE}\r\n\r\n{HIDDEN}",
    "body after Expect": WITH % "Expect: 100-continue",
    **{
        f"body after an upgrade to {protocol}": WITH % f"Connection: Upgrade\r\nUpgrade: {protocol}"
        for protocol in ("h2c", "websocket")
    },
    "chunks in HTTP/1.0": (TO_BOTH % "Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0", 1),
    "connection names the length": WITH % "Connection: Content-Length",
    "trailer with a length": IN_CHUNKS % ("{hex}", "Content-Length: 9\r\n"),
    "trailer with an identity": IN_CHUNKS % ("{hex}", "Authorization: Bearer x\r\nHost: evil.example\r\n"),
}


async def test_the_table_is_large() -> None:
    assert len(FRAMINGS) >= 75


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
async def test_no_text_of_a_body_is_carried_out_as_a_request(house: House, framing: str) -> None:
    url = urlsplit(house.url)
    hidden = HIDDEN.format(host=url.netloc)
    values = {"host": url.netloc, "size": len(hidden), "hex": f"{len(hidden):x}", "all": len(hidden) + 5}
    reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
    received = b""
    try:
        writer.write(framing.format(**values).encode("latin-1"))
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            while data := await reader.read(65_536):
                received += data
    except ConnectionError:
        pass  # the gateway has cut the connection, with bytes unread
    finally:
        writer.close()
    assert b'"developer"' not in received, "the hidden request was carried out"
    assert received.count(b"HTTP/1.1 ") <= 2 + received.count(b"100 Continue"), received

"""An issuer's keys over real TLS: only from who can prove to be the issuer, with a cap and without redirects."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shared_clients.errors import Permanent, Transient, Unknown
from shared_clients.identity.jwks import key_set_fetcher


class Issuer:
    """Answers each request with what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        self.asked = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and its self-signed certificate for localhost."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("authority") / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file


@pytest.fixture
async def issuer(authority: Path) -> AsyncIterator[Issuer]:
    issuer = Issuer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority)
    async with await asyncio.start_server(issuer.serve, "127.0.0.1", 0, ssl=context) as server:
        issuer.url = f"https://localhost:{server.sockets[0].getsockname()[1]}/jwks"
        yield issuer


async def test_keys_come_from_the_issuer_with_the_token_it_asks_for(issuer: Issuer, authority: Path) -> None:
    assert await key_set_fetcher(issuer.url, ca_file=authority, token=lambda: "ours")() == b"{}"
    assert issuer.asked.startswith(b"GET /jwks HTTP/1.1\r\n")
    assert b"authorization: bearer ours\r\n" in issuer.asked.lower()


async def test_an_issuer_without_a_valid_certificate_is_not_believed(issuer: Issuer) -> None:
    with pytest.raises(Transient) as refused:
        await key_set_fetcher(issuer.url, ca_file=None, token=None)()
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.__cause__)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n", Permanent),
        (b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", Transient),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, ValueError),
        (b"", Unknown),
    ],
    ids=["redirect", "outage", "too large", "cut"],
)
async def test_any_other_answer_is_none(issuer: Issuer, authority: Path, answer: bytes, error: type[Exception]) -> None:
    issuer.answer = answer
    with pytest.raises(error):
        await key_set_fetcher(issuer.url, ca_file=authority, token=None)()

"""The keys that sign identities: their creation, and their text form for other processes."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_json


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, the service that owns it, and the services that may trust it."""

    issuer: str
    audiences: frozenset[str]
    public: Ed25519PublicKey


TrustedKeys = Mapping[str, TrustedKey]
"""By `kid`."""


def generate_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def private_pem(key: Ed25519PrivateKey) -> str:
    """Return the key as unencrypted PKCS#8, for a file of mode 0600 or a child's environment."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def load_private(pem: str) -> Ed25519PrivateKey:
    """Read the output of `private_pem`.

    Raises:
        ValueError: it is no Ed25519 key.
    """
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"expected an Ed25519 private key in PEM form, and got a {type(key).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - the text is of the wrong kind, not the argument
    return key


def key_id(public: Ed25519PublicKey) -> str:
    """Return the key's JWK thumbprint (RFC 7638): its `kid`."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _encoded(public.public_bytes_raw())}
    return _encoded(hashlib.sha256(to_json(members)).digest())


def trust(issuer: str, public: Ed25519PublicKey, audiences: frozenset[str]) -> dict[str, TrustedKey]:
    """Return a mapping of trusted keys with one entry; join several mappings with `|`."""
    return {key_id(public): TrustedKey(issuer, audiences, public)}


class _Jwk(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    x: str
    issuer: str
    audiences: frozenset[str]


_JWKS: Final = TypeAdapter(tuple[_Jwk, ...], config=ConfigDict(hide_input_in_errors=True))


def dump_trusted(keys: TrustedKeys) -> str:
    """Return trusted keys as JSON, for the environment or a file of another process."""
    entries = keys.values()
    return _JWKS.dump_json(
        tuple(_Jwk(x=_encoded(k.public.public_bytes_raw()), issuer=k.issuer, audiences=k.audiences) for k in entries)
    ).decode()


def load_trusted(text: str) -> TrustedKeys:
    """Read the output of `dump_trusted`.

    Raises:
        ValueError: names the faulty member.
    """
    trusted: dict[str, TrustedKey] = {}
    for jwk in _JWKS.validate_json(text):
        public = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(jwk.x + "="))
        trusted |= trust(jwk.issuer, public, jwk.audiences)
    return trusted


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()

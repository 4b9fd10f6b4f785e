"""Any text that is sent as an identity is refused as a problem, and raises no other error."""

import base64
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import to_json

from shared_clients.identity import Issuer, Verifier, trust
from shared_models.problems import Problem

KEY: Final = Ed25519PrivateKey.from_private_bytes(b"g" * 32)
KID: Final = Issuer("api-gateway", KEY).kid
TRUSTED: Final = trust("api-gateway", KEY.public_key(), frozenset({"request-manager"}))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = ["iss", "aud", "act", "iat", "exp", "method", "path", "sub", "sub_issuer", "tenant", "scopes", "sessions"]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def refuses(token: str) -> None:
    verifier = Verifier("request-manager", TRUSTED, clock=lambda: 1_800_000_000)
    with pytest.raises(Problem):
        verifier.verify(token, "GET", "/api/v1/requests")


@given(st.text(max_size=200))
@example("")
@example("..")
@example("é.é.é")
@example("\ud800.a.b")
@example("a" * 100_000)
def test_text_is_refused(token: str) -> None:
    refuses(token)


@given(head=st.binary(max_size=40) | JSON.map(to_json), payload=st.binary(max_size=40), tail=st.binary(max_size=70))
def test_three_parts_of_anything_are_refused(head: bytes, payload: bytes, tail: bytes) -> None:
    refuses(f"{b64(head)}.{b64(payload)}.{b64(tail)}")


@given(header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64"]), JSON))
def test_any_header_that_is_not_ours_is_refused(header: dict[str, object]) -> None:
    signed = f"{b64(to_json({'alg': 'EdDSA', 'kid': KID, **header}))}.{b64(b'{}')}"
    refuses(f"{signed}.{b64(KEY.sign(signed.encode()))}")


@given(claims=st.dictionaries(st.sampled_from(CLAIMS), JSON) | JSON | st.binary(max_size=40))
def test_any_claims_signed_by_a_trusted_key_are_read_without_a_crash(claims: object) -> None:
    payload = claims if isinstance(claims, bytes) else to_json(claims)
    signed = f"{b64(to_json({'alg': 'EdDSA', 'kid': KID, 'typ': 'JWT'}))}.{b64(payload)}"
    refuses(f"{signed}.{b64(KEY.sign(signed.encode()))}")

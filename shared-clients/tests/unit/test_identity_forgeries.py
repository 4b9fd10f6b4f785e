"""Forged tokens, which are all refused; each differs from the real one in one thing."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from shared_clients.identity import Issuer, Verifier, trust
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

NOW: Final = 1_800_000_000
GATEWAY: Final = Ed25519PrivateKey.from_private_bytes(b"g" * 32)
DISPATCHER: Final = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
STRANGER: Final = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
TRUSTED: Final = trust("api-gateway", GATEWAY.public_key(), frozenset({"request-manager", "agent-service"})) | trust(
    "integration-dispatcher", DISPATCHER.public_key(), frozenset({"agent-service"})
)
KID: Final = Issuer("api-gateway", GATEWAY).kid
DISPATCHER_KID: Final = Issuer("integration-dispatcher", DISPATCHER).kid
PRINCIPAL: Final = Principal(
    issuer="idp", subject="ada", tenant="acme", credential="key-1", channel="api", scopes=frozenset({"requests"})
)
METHOD: Final = "POST"
PATH: Final = "/api/v1/requests"
HEADER: Final[dict[str, JsonValue]] = {"alg": "EdDSA", "kid": KID, "typ": "JWT"}
CLAIMS: Final[dict[str, JsonValue]] = {
    "iss": "api-gateway",
    "aud": "request-manager",
    "act": {"sub": "api-gateway"},
    "iat": NOW,
    "exp": NOW + 60,
    "method": METHOD,
    "path": PATH,
    "sub": "ada",
    "sub_issuer": "idp",
    "tenant": "acme",
    "credential": "key-1",
    "channel": "api",
    "scopes": ["requests"],
    "sessions": [],
}

type Forger = Callable[[], str]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def text(value: JsonValue) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def compact(header: bytes, payload: bytes, sign: Callable[[bytes], bytes] = GATEWAY.sign) -> str:
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def signed(*, header: dict[str, JsonValue] | None = None, without: str = "", **claims: JsonValue) -> str:
    """Sign the real claims with these changes, by the real key."""
    payload = {name: value for name, value in {**CLAIMS, **claims}.items() if name != without}
    return compact(text({**HEADER, **(header or {})}), text(payload))


def by(key: Ed25519PrivateKey, kid: str = KID, **claims: JsonValue) -> str:
    return compact(text({**HEADER, "kid": kid}), text({**CLAIMS, **claims}), key.sign)


def keyed(secret: bytes, algorithm: str = "HS256") -> str:
    header = text({**HEADER, "alg": algorithm})
    return compact(header, text(CLAIMS), lambda data: hmac.new(secret, data, hashlib.sha256).digest())


def raw_claims(extra: str) -> str:
    """Write the claims as text with something in front that no dict could hold."""
    return compact(text(HEADER), b"{" + extra.encode() + b"," + text(CLAIMS)[1:])


def real() -> str:
    return signed()


def parts() -> list[str]:
    return real().split(".")


def tampered(**claims: JsonValue) -> str:
    head, _, signature = parts()
    return f"{head}.{b64(text({**CLAIMS, **claims}))}.{signature}"


def reheaded(header: dict[str, JsonValue]) -> str:
    _, payload, signature = parts()
    return f"{b64(text(header))}.{payload}.{signature}"


def flipped(position: int) -> str:
    head, payload, signature = parts()
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[position] ^= 1
    return f"{head}.{payload}.{b64(bytes(raw))}"


def raw_public() -> bytes:
    return GATEWAY.public_key().public_bytes_raw()


def pem_public() -> bytes:
    return GATEWAY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk_of(key: Ed25519PrivateKey) -> dict[str, JsonValue]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw()), "kid": KID}


def by_ecdsa() -> str:
    curve = ec.generate_private_key(ec.SECP256R1())
    return compact(text({**HEADER, "alg": "ES256"}), text(CLAIMS), lambda data: curve.sign(data, ec.ECDSA(SHA256())))


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


FORGERIES: Final[dict[str, Forger]] = {
    # not a token at all
    "empty": lambda: "",
    "one dot": lambda: ".",
    "two dots": lambda: "..",
    "a word": lambda: "developer",
    "a bearer": lambda: f"Bearer {real()}",
    "one segment": lambda: parts()[0],
    "two segments": lambda: ".".join(parts()[:2]),
    "four segments": lambda: f"{real()}.{parts()[2]}",
    "five segments, as an encrypted token has": lambda: ".".join([*parts(), *parts()[:2]]),
    "two tokens": lambda: f"{real()},{real()}",
    "a space before": lambda: f" {real()}",
    "a newline after": lambda: f"{real()}\n",
    "NUL after": lambda: f"{real()}\0",
    "letters that look alike": lambda: real().replace("e", "\u0435"),
    "huge": lambda: signed(sub="a" * 100_000),
    "a huge segment of nothing": lambda: "A" * 1_000_000,
    "a huge header": lambda: signed(header={"kid": "a" * 50_000}),
    # encodings that a lenient decoder forgives
    "a padded signature": lambda: f"{real()}==",
    "padded segments": lambda: ".".join(part + "=" * (-len(part) % 4) for part in parts()),
    "standard base64": lambda: ".".join([*parts()[:2], base64.b64encode(b"\xfb" * 64).decode()]),
    "junk in the signature": lambda: real()[:-4] + "!!!!",
    "bits after the signature's end": lambda: real()[:-1] + ("B" if real()[-1] != "B" else "C"),
    "bad base64 in the header": lambda: "eyJhbGciOiJFZERTQSJ." + ".".join(parts()[1:]),
    "bad base64 in the claims": lambda: f"{parts()[0]}.A.{parts()[2]}",
    # signatures
    "no signature": lambda: ".".join([*parts()[:2], ""]),
    "a signature of zeros": lambda: ".".join([*parts()[:2], b64(bytes(64))]),
    "the first bit flipped": lambda: flipped(0),
    "the last bit flipped": lambda: flipped(63),
    "a short signature": lambda: ".".join([*parts()[:2], parts()[2][:-2]]),
    "the signature of another token": lambda: ".".join([*parts()[:2], signed(sub="eve").split(".")[2]]),
    "another subject under the old signature": lambda: tampered(sub="root"),
    "another tenant under the old signature": lambda: tampered(tenant="other"),
    "more scopes under the old signature": lambda: tampered(scopes=["requests", "admin"]),
    # algorithms
    "alg none": lambda: reheaded({"alg": "none", "typ": "JWT"}),
    "alg none, without signature": lambda: f"{b64(text({**HEADER, 'alg': 'none'}))}.{parts()[1]}.",
    "alg None": lambda: reheaded({**HEADER, "alg": "None"}),
    "alg missing": lambda: reheaded({"kid": KID, "typ": "JWT"}),
    "alg null": lambda: reheaded({**HEADER, "alg": None}),
    "alg a list": lambda: reheaded({**HEADER, "alg": ["EdDSA"]}),
    "alg in other capitals": lambda: signed(header={"alg": "eddsa"}),
    "HS256 with the raw public key": lambda: keyed(raw_public()),
    "HS256 with the public key as PEM": lambda: keyed(pem_public()),
    "HS256 with the public key as JWK": lambda: keyed(text(jwk_of(GATEWAY))),
    "HS256 with the public key in base64": lambda: keyed(b64(raw_public()).encode()),
    "HS256 with the kid": lambda: keyed(KID.encode()),
    "HS256 with nothing": lambda: keyed(b""),
    "HS512 by name": lambda: keyed(raw_public(), "HS512"),
    "EdDSA by name, an HMAC in truth": lambda: keyed(raw_public(), "EdDSA"),
    "ES256 by a key of its own": by_ecdsa,
    "Ed448 by a key of its own": lambda: compact(text(HEADER), text(CLAIMS), Ed448PrivateKey.generate().sign),
    "RS256 by name": lambda: signed(header={"alg": "RS256"}),
    # keys
    "a stranger's key under our kid": lambda: by(STRANGER),
    "a stranger's key under its own kid": lambda: by(STRANGER, Issuer("x", STRANGER).kid),
    "an unknown kid": lambda: signed(header={"kid": "nobody"}),
    "no kid": lambda: compact(text({"alg": "EdDSA", "typ": "JWT"}), text(CLAIMS)),
    "a null kid": lambda: signed(header={"kid": None}),
    "a kid that is a number": lambda: signed(header={"kid": 1}),
    "a kid that is a list": lambda: signed(header={"kid": [KID]}),
    "a kid that is a path": lambda: signed(header={"kid": "../../dev/null"}),
    "a kid that is SQL": lambda: signed(header={"kid": "' OR 1=1 --"}),
    "the kid of another service": lambda: signed(header={"kid": DISPATCHER_KID}),
    "another service's key, in the gateway's name": lambda: by(DISPATCHER, DISPATCHER_KID),
    "another service's key, under the gateway's kid": lambda: by(DISPATCHER),
    "a service that may not speak to this one": lambda: by(
        DISPATCHER, DISPATCHER_KID, iss="integration-dispatcher", act={"sub": "integration-dispatcher"}
    ),
    # headers that bring a key, or ask for more
    "an embedded jwk": lambda: signed(header={"jwk": jwk_of(GATEWAY)}),
    "an embedded jwk of a stranger": lambda: compact(
        text({**HEADER, "jwk": jwk_of(STRANGER)}), text(CLAIMS), STRANGER.sign
    ),
    "a jku": lambda: signed(header={"jku": "https://evil.example/keys"}),
    "an x5u": lambda: signed(header={"x5u": "https://evil.example/cert"}),
    "an x5c": lambda: signed(header={"x5c": ["MIIB"]}),
    "an unknown crit": lambda: signed(header={"crit": ["exp"]}),
    "a detached payload": lambda: signed(header={"b64": False, "crit": ["b64"]}),
    "compression": lambda: signed(header={"zip": "DEF"}),
    "a nested token": lambda: compact(text({**HEADER, "cty": "JWT"}), real().encode()),
    "another typ": lambda: signed(header={"typ": "at+jwt"}),
    "no typ": lambda: compact(text({"alg": "EdDSA", "kid": KID}), text(CLAIMS)),
    "a header that is a list": lambda: compact(b"[]", text(CLAIMS)),
    "a header that is no JSON": lambda: compact(b"{", text(CLAIMS)),
    "a header 400 levels deep": lambda: compact(b'{"alg":' + deep(180) + b"}", text(CLAIMS)),
    # time
    "expired": lambda: signed(iat=NOW - 120, exp=NOW - 60),
    "expired just past the leeway": lambda: signed(iat=NOW - 65, exp=NOW - 5),
    "issued in the future": lambda: signed(iat=NOW + 30, exp=NOW + 60),
    "not before the future": lambda: signed(nbf=NOW + 30),
    "a lifetime of 61 seconds": lambda: signed(exp=NOW + 61),
    "a lifetime of a year": lambda: signed(exp=NOW + 31_536_000),
    "good for ever": lambda: signed(exp=2**62),
    "an age before its birth": lambda: signed(iat=NOW, exp=NOW - 1),
    "times beyond 64 bits": lambda: signed(iat=2**70, exp=2**70 + 60),
    "negative times": lambda: signed(iat=-60, exp=0),
    "exp as text": lambda: signed(exp=str(NOW + 60)),
    "exp with a fraction": lambda: signed(exp=NOW + 59.5),
    "exp a truth value": lambda: signed(exp=True),
    "exp NaN": lambda: compact(text(HEADER), text({**CLAIMS, "exp": 0}).replace(b'"exp":0', b'"exp":NaN')),
    "nbf as text": lambda: signed(nbf="never"),
    # whom it is for, and for what
    "another audience": lambda: signed(aud="agent-service"),
    "several audiences": lambda: signed(aud=["request-manager"]),
    "an audience in capitals": lambda: signed(aud="Request-Manager"),
    "another issuer": lambda: signed(iss="workflow-engine"),
    "an issuer that is a list": lambda: signed(iss=["api-gateway"]),
    "another actor": lambda: signed(act={"sub": "agent-service"}),
    "an actor that is text": lambda: signed(act="api-gateway"),
    "another method": lambda: signed(method="GET"),
    "a method in small letters": lambda: signed(method="post"),
    "another path": lambda: signed(path="/api/v1/sessions"),
    "a path that begins alike": lambda: signed(path=PATH + "/"),
    "a path with a query": lambda: signed(path=PATH + "?wait=1"),
    "any path": lambda: signed(path="*"),
    # claims
    **{f"without {name}": lambda name=name: signed(without=name) for name in CLAIMS},  # type: ignore[misc]  # a default that binds
    "a subject that is null": lambda: signed(sub=None),
    "a subject that is a number": lambda: signed(sub=1),
    "a tenant that is a list": lambda: signed(tenant=["acme"]),
    "scopes as one text": lambda: signed(scopes="requests admin"),
    "sessions that are no ids": lambda: signed(sessions=["*"]),
    "a duplicate subject": lambda: raw_claims('"sub":"root"'),
    "a duplicate exp": lambda: raw_claims('"exp":1'),
    "a duplicate in another spelling": lambda: raw_claims('"s\\u0075b":"root"'),
    "claims that are a list": lambda: compact(text(HEADER), b"[]"),
    "claims that are empty": lambda: compact(text(HEADER), b"{}"),
    "claims that are no JSON": lambda: compact(text(HEADER), b"hello"),
    "claims after a byte order mark": lambda: compact(text(HEADER), b"\xef\xbb\xbf" + text(CLAIMS)),
    "claims in no UTF-8": lambda: compact(text(HEADER), text(CLAIMS).replace(b"acme", b"\xff")),
    "claims 1,000 levels deep": lambda: compact(text(HEADER), text(CLAIMS)[:-1] + b',"x":' + deep(1000) + b"}"),
}


def verifier(now: float = NOW) -> Verifier:
    return Verifier("request-manager", TRUSTED, clock=lambda: now)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_token_gets_the_one_refusal(forge: Forger) -> None:
    with pytest.raises(Problem) as refused:
        verifier().verify(forge(), METHOD, PATH)
    assert refused.value.kind is Problems.NO_IDENTITY.value
    assert refused.value.detail == "expected the header Authorization: Bearer <key>, with a key that is valid here"
    assert "WWW-Authenticate" in refused.value.headers


@given(st.binary(max_size=200), st.integers(0, 600), st.binary(max_size=3))
def test_whatever_is_signed_or_changed_is_refused_and_never_a_crash(
    payload: bytes, position: int, change: bytes
) -> None:
    token = real().encode()
    changed = (token[:position] + change + token[position + len(change) :]).decode("latin-1")
    for forged in (compact(text(HEADER), payload), compact(payload, text(CLAIMS)), changed):
        if forged != real():
            with pytest.raises(Problem):
                verifier().verify(forged, METHOD, PATH)


def test_the_corpus_is_large_and_without_repeats() -> None:
    tokens = [forge() for forge in FORGERIES.values()]
    assert len(tokens) >= 60
    assert len(set(tokens)) == len(tokens)


def test_the_real_token_that_the_forgeries_start_from_is_good() -> None:
    assert verifier().verify(real(), METHOD, PATH).principal == PRINCIPAL


@pytest.mark.parametrize("now", [NOW - 5, NOW, NOW + 59, NOW + 64.9])
def test_clocks_may_differ_by_the_leeway(now: float) -> None:
    assert verifier(now).verify(real(), METHOD, PATH).principal == PRINCIPAL


def test_a_claim_that_a_later_release_adds_is_ignored() -> None:
    assert verifier().verify(signed(region="north"), METHOD, PATH).principal == PRINCIPAL


def test_a_refused_token_is_refused_again_after_a_good_one() -> None:
    door = verifier()
    door.verify(real(), METHOD, PATH)
    for _ in range(2):
        with pytest.raises(Problem):
            door.verify(tampered(sub="root"), METHOD, PATH)

"""Senders of events need a valid token of the issuer, for this service and of an accepted subject."""

import asyncio
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from shared_clients.errors import Transient
from shared_clients.identity import OidcSenders, OidcSettings, SharedSecret
from shared_clients.identity.jwks import FetchedKeys
from shared_clients.identity.senders import token_file_reader
from shared_models.problems import Problem, Problems

ISSUER = "https://kubernetes.default.svc"
AUDIENCE = "agent-service"
BROKER = "system:serviceaccount:flotilla:agent-service-oidc"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECRET = b"0123456789abcdef0123456789abcdef"


def jwks(**more: Any) -> bytes:
    keys = [
        {**json.loads(RSAAlgorithm.to_jwk(RSA.public_key())), "kid": "rsa", "use": "sig"},
        {**json.loads(ECAlgorithm.to_jwk(EC.public_key())), "kid": "ec"},
        {"kty": "oct", "kid": "oct", "k": urlsafe_b64encode(SECRET).rstrip(b"=").decode(), "alg": "HS256"},
    ]
    return json.dumps({"keys": [*keys, *more.values()]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": [AUDIENCE], "sub": BROKER, "iat": now, "nbf": now, "exp": now + 600} | changes
    return {name: value for name, value in whole.items() if value is not None}


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, {"kid": kid} if kid else {})


class Issuer:
    """Gives its keys, or does not, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.keys = jwks()
        self.down: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = 1000.0

    async def fetch(self) -> bytes:
        self.asked += 1
        await self.gate.wait()
        if self.down:
            raise self.down
        return self.keys

    def fetched(self) -> FetchedKeys:
        return FetchedKeys(self.fetch, lambda: self.now)


def oidc(**changes: Any) -> OidcSettings:
    given = {"issuer": ISSUER, "jwks_url": f"{ISSUER}/openid/v1/jwks", "senders": [BROKER], "token_file": "/token"}
    return OidcSettings.model_validate({**given, **changes})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def senders(issuer: Issuer) -> OidcSenders:
    return OidcSenders(oidc(), AUDIENCE, issuer.fetch)


@pytest.mark.parametrize(
    "good",
    [
        token,
        lambda: token(EC, "ES256", "ec"),
        lambda: token(aud=AUDIENCE),
        lambda: token(aud=["another", AUDIENCE]),
        lambda: token(nbf=None),
        lambda: token(exp=int(time.time()) - 2),
    ],
    ids=["RS256", "ES256", "one audience", "several audiences", "without nbf", "within the leeway"],
)
async def test_the_broker_is_let_in(senders: OidcSenders, good: Callable[[], str]) -> None:
    await senders.verify_sender(f"Bearer {good()}")
    await senders.verify_sender(f"bearer {good()}")
    await senders.verify_sender(f"BEARER  {good()} ")


def unsigned() -> str:
    return jwt.encode(claims(), "", "none", {"kid": "rsa"})


def confused(secret: bytes, alg: str, kid: str) -> str:
    """Signed with a secret whatever its head says, which a careless verifier believes."""
    head, body = (
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": alg, "kid": kid, "typ": "JWT"}, claims())
    )
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head + b"." + body, secret)
    return b".".join((head, body, urlsafe_b64encode(signature).rstrip(b"="))).decode()


PUBLIC = RSAAlgorithm.to_jwk(RSA.public_key()).encode()
FORGED: Mapping[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "Bearer ",
    "not a token": lambda: "Bearer a.b.c",
    "another scheme": lambda: f"Basic {token()}",
    "no scheme": token,
    "a stranger's signature": lambda: f"Bearer {token(STRANGER)}",
    "an unknown key": lambda: f"Bearer {token(STRANGER, kid='theirs')}",
    "no key id": lambda: f"Bearer {token(kid=None)}",
    "another key's id": lambda: f"Bearer {token(EC, 'ES256', 'rsa')}",
    "another algorithm of the same key": lambda: f"Bearer {token(algorithm='PS256')}",
    "another hash": lambda: f"Bearer {token(algorithm='RS512')}",
    "no signature": lambda: f"Bearer {unsigned()}",
    "a symmetric key of the set": lambda: f"Bearer {token(SECRET, 'HS256', 'oct')}",
    "the public key as a secret": lambda: f"Bearer {confused(PUBLIC, 'HS256', 'rsa')}",
    "a symmetric key that says to be another": lambda: f"Bearer {confused(SECRET, 'RS256', 'oct')}",
    "another issuer": lambda: f"Bearer {token(iss='https://elsewhere')}",
    "another audience": lambda: f"Bearer {token(aud=['request-manager'])}",
    "no audience": lambda: f"Bearer {token(aud=None)}",
    "another sender": lambda: f"Bearer {token(sub='system:serviceaccount:flotilla:stranger')}",
    "no sender": lambda: f"Bearer {token(sub=None)}",
    "no end": lambda: f"Bearer {token(exp=None)}",
    "no beginning": lambda: f"Bearer {token(iat=None)}",
    "expired": lambda: f"Bearer {token(exp=int(time.time()) - 10)}",
    "not good yet": lambda: f"Bearer {token(nbf=int(time.time()) + 60)}",
    "too large": lambda: f"Bearer {token(more='x' * 9000)}",
}


@pytest.mark.parametrize("name", FORGED)
async def test_every_faulty_token_gets_the_same_answer(senders: OidcSenders, name: str) -> None:
    with pytest.raises(Problem) as refused:
        await senders.verify_sender(FORGED[name]())
    assert refused.value.kind is Problems.NO_IDENTITY.value


SENDERS: Final = [
    ("a:b:*", "a:b:c", True),
    ("a:b:*", "a:b:", True),
    ("a:b:*", "a:x:b:c", False),
    ("a?b", "a?b", True),
    ("a?b", "aXb", False),
    ("a[1]", "a[1]", True),
    ("a[1]", "a1", False),
    ("a[!1]*", "a[!1]2", True),
    ("a[!1]*", "a22", False),
    ("A", "a", False),
]


@pytest.mark.parametrize(("sender", "subject", "good"), SENDERS)
async def test_a_sender_is_exact_or_ends_in_a_star(issuer: Issuer, sender: str, subject: str, *, good: bool) -> None:
    senders = OidcSenders(oidc(senders=[sender]), AUDIENCE, issuer.fetch)
    if good:
        await senders.verify_sender(f"Bearer {token(sub=subject)}")
    else:
        with pytest.raises(Problem):
            await senders.verify_sender(f"Bearer {token(sub=subject)}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://plain"},
        {"jwks_url": "http://plain"},
        {"senders": []},
        {"senders": ["*"]},
        {"senders": ["a*b"]},
        {"unknown": 1},
    ],
)
def test_settings_that_would_let_others_in_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        oidc(**wrong)


async def test_concurrent_checks_share_one_fetch(issuer: Issuer, senders: OidcSenders) -> None:
    issuer.gate.clear()
    asking = [asyncio.create_task(senders.verify_sender(f"Bearer {token()}")) for _ in range(20)]
    while not issuer.asked:  # noqa: ASYNC110 - until the first of them has got there
        await asyncio.sleep(0)
    issuer.gate.set()
    await asyncio.gather(*asking)
    assert issuer.asked == 1


async def test_keys_are_fetched_again_when_they_are_old_and_kept_while_the_issuer_is_away(issuer: Issuer) -> None:
    keys = issuer.fetched()
    assert await keys.find("rsa")
    issuer.now += 599
    assert await keys.find("rsa")
    assert issuer.asked == 1
    issuer.now += 2
    issuer.down = Transient("away")
    assert await keys.find("rsa")
    assert await keys.find("rsa")
    assert issuer.asked == 2, "not again within ten seconds"
    issuer.down, issuer.now = None, issuer.now + 11
    assert await keys.find("rsa")
    assert issuer.asked == 3


async def test_a_rotated_key_is_fetched_or_transient_and_made_up_ones_do_not_hammer_the_issuer(issuer: Issuer) -> None:
    keys = issuer.fetched()
    assert await keys.find("new") is None
    issuer.keys = jwks(new={**json.loads(RSAAlgorithm.to_jwk(STRANGER.public_key())), "kid": "new"})
    for kid in ("new", *(f"made-up-{n}" for n in range(50))):
        with pytest.raises(Transient, match="a moment ago") as refused:
            await keys.find(kid)
        assert refused.value.retry_after == 10
    assert issuer.asked == 1
    issuer.now += 11
    assert await keys.find("new")
    assert issuer.asked == 2


@pytest.mark.parametrize("down", [Transient("away"), ValueError("no JSON"), Transient("no token to show there")])
async def test_tokens_are_not_refused_for_good_while_the_keys_cannot_be_fetched(
    issuer: Issuer, down: Exception
) -> None:
    issuer.down = down
    senders = OidcSenders(oidc(), AUDIENCE, issuer.fetch)
    for _ in range(2):
        with pytest.raises(Transient, match="does not give its keys"):
            await senders.verify_sender(f"Bearer {token()}")
    assert issuer.asked == 1


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[]", b'{"keys": []}', b"\xff", b'{"keys": [{"kty": "x"}]}'])
async def test_a_key_set_that_is_none_changes_nothing(issuer: Issuer, garbage: bytes) -> None:
    keys = issuer.fetched()
    assert await keys.find("rsa")
    issuer.keys, issuer.now = garbage, issuer.now + 601
    assert await keys.find("rsa")


async def test_a_stale_key_is_good_while_another_asks_for_fresh_ones(issuer: Issuer) -> None:
    keys = issuer.fetched()
    assert await keys.find("rsa")
    issuer.now += 601
    issuer.gate.clear()
    first = asyncio.create_task(keys.find("rsa"))
    while issuer.asked < 2:  # noqa: ASYNC110 - until it is asking
        await asyncio.sleep(0)
    assert await keys.find("rsa")
    issuer.gate.set()
    assert await first


def test_our_token_is_read_again_when_its_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    read = token_file_reader(file)
    with pytest.raises(Transient, match="cannot be read"):
        read()
    file.write_text("one\n")
    assert read() == "one"
    fresh = tmp_path / "fresh"
    fresh.write_text("two\n")
    os.replace(fresh, file)  # noqa: PTH105 - as a kubelet swaps it
    assert read() == "two"


async def test_a_shared_secret_is_compared_whole() -> None:
    shared = SharedSecret("0123456789abcdef")
    for scheme in ("Bearer ", "bearer ", "BEARER  "):
        await shared.verify_sender(f"{scheme}{shared.token()}")
    for wrong in ("", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer é"):
        with pytest.raises(Problem):
            await shared.verify_sender(wrong)

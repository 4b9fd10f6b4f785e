"""Identity as its users see it: issuing and verifying, their caches, keys on the way to a process, and credentials."""

from base64 import urlsafe_b64decode
from typing import Final
from uuid import uuid4

import jiter
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fastapi import APIRouter, Depends
from httpx import ASGITransport, AsyncClient
from starlette.datastructures import Headers

from service_process.web import create_app
from shared_clients.identity import (
    IDENTITY_HEADER,
    DenyAll,
    DevKey,
    Identity,
    Issuer,
    TrustedKey,
    Verifier,
    dump_trusted,
    generate_key,
    load_private,
    load_trusted,
    private_pem,
    require_scope,
    trust,
)
from shared_models.problems import Problem
from shared_models.requests import Principal

PRINCIPAL: Final = Principal(
    issuer="idp",
    subject="ada",
    tenant="acme",
    credential="key-1",
    channel="api",
    scopes=frozenset({"requests", "sessions"}),
)
PATH: Final = "/api/v1/requests"
AUDIENCES: Final = frozenset({"request-manager"})


type Bytes = bytes | bytearray | memoryview


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class CountingPrivate(Ed25519PrivateKey):
    """A real key that counts its signatures."""

    def __init__(self) -> None:
        self.inner = Ed25519PrivateKey.generate()
        self.signatures = 0

    def sign(self, data: Bytes) -> bytes:
        self.signatures += 1
        return self.inner.sign(data)

    def public_key(self) -> Ed25519PublicKey:
        return self.inner.public_key()

    def private_bytes(
        self,
        encoding: Encoding,
        format: PrivateFormat,  # noqa: A002 - its name in the library
        encryption_algorithm: KeySerializationEncryption,
    ) -> bytes:
        return self.inner.private_bytes(encoding, format, encryption_algorithm)

    def private_bytes_raw(self) -> bytes:
        return self.inner.private_bytes_raw()

    def __copy__(self) -> "CountingPrivate":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "CountingPrivate":
        return self


class CountingPublic(Ed25519PublicKey):
    """A real key that counts its checks."""

    def __init__(self, inner: Ed25519PublicKey) -> None:
        self.inner = inner
        self.checks = 0

    def verify(self, signature: Bytes, data: Bytes) -> None:
        self.checks += 1
        self.inner.verify(signature, data)

    def public_bytes(self, encoding: Encoding, format: PublicFormat) -> bytes:  # noqa: A002 - its name in the library
        return self.inner.public_bytes(encoding, format)

    def public_bytes_raw(self) -> bytes:
        return self.inner.public_bytes_raw()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __copy__(self) -> "CountingPublic":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "CountingPublic":
        return self


def pair(clock: Clock | None = None) -> tuple[Issuer, Verifier]:
    key = generate_key()
    clock = clock or Clock()
    trusted = trust("api-gateway", key.public_key(), AUDIENCES)
    return Issuer("api-gateway", key, clock), Verifier("request-manager", trusted, clock)


def test_what_is_issued_verifies_with_the_whole_principal_and_its_sessions() -> None:
    issuer, verifier = pair()
    sessions = frozenset({uuid4(), uuid4()})
    token = issuer.issue(PRINCIPAL, audience="request-manager", method="POST", path=PATH, sessions=sessions)
    assert verifier.verify(token, "POST", PATH) == Identity(PRINCIPAL, sessions)


def test_token_carries_roles_groups_and_assurance_and_one_without_them_is_still_valid() -> None:
    issuer, verifier = pair()
    ada = PRINCIPAL.model_copy(
        update={"roles": frozenset({"approver"}), "groups": frozenset({"hr", "it"}), "assurance": "urn:mfa"}
    )
    for principal in (ada, PRINCIPAL):
        token = issuer.issue(principal, audience="request-manager", method="POST", path=PATH)
        assert verifier.verify(token, "POST", PATH).principal == principal
        claims = jiter.from_json(urlsafe_b64decode(token.split(".")[1] + "=="))
        assert ({"roles", "groups", "assurance"} <= claims.keys()) == (principal is ada), (
            "an old verifier sees no change"
        )


def test_one_caller_costs_one_signature_in_half_a_minute() -> None:
    clock, key = Clock(), CountingPrivate()
    issuer = Issuer("api-gateway", key, clock)
    tokens = set()
    for second in range(60):
        clock.now = 1_800_000_000.0 + second
        tokens.add(issuer.issue(PRINCIPAL, audience="request-manager", method="POST", path=PATH))
    assert key.signatures == len(tokens) == 2
    issuer.issue(PRINCIPAL, audience="request-manager", method="GET", path=PATH)
    assert key.signatures == 3


def test_a_token_is_good_for_half_a_minute_more_whenever_it_is_handed_out() -> None:
    clock = Clock()
    issuer, verifier = pair(clock)
    for second in range(60):
        clock.now = 1_800_000_000.0 + second
        token = issuer.issue(PRINCIPAL, audience="request-manager", method="POST", path=PATH)
        clock.now += 30
        verifier.verify(token, "POST", PATH)


def test_one_token_costs_one_check_until_it_expires() -> None:
    clock, key = Clock(), generate_key()
    public = CountingPublic(key.public_key())
    issuer = Issuer("api-gateway", key, clock)
    verifier = Verifier("request-manager", {issuer.kid: TrustedKey("api-gateway", AUDIENCES, public)}, clock)
    token = issuer.issue(PRINCIPAL, audience="request-manager", method="POST", path=PATH)
    for _ in range(100):
        verifier.verify(token, "POST", PATH)
    assert public.checks == 1
    clock.now += 66
    with pytest.raises(Problem):
        verifier.verify(token, "POST", PATH)
    assert public.checks == 1


def test_a_remembered_token_is_still_good_for_its_one_method_and_path_only() -> None:
    issuer, verifier = pair()
    token = issuer.issue(PRINCIPAL, audience="request-manager", method="POST", path=PATH)
    verifier.verify(token, "POST", PATH)
    for method, path in (("GET", PATH), ("POST", "/api/v1/sessions")):
        with pytest.raises(Problem):
            verifier.verify(token, method, path)


def test_two_people_never_share_a_token() -> None:
    issuer, verifier = pair()
    eve = PRINCIPAL.model_copy(update={"subject": "eve"})
    for person in (PRINCIPAL, eve, PRINCIPAL):
        token = issuer.issue(person, audience="request-manager", method="POST", path=PATH)
        assert verifier.verify(token, "POST", PATH).principal == person


def test_keys_reach_another_process_as_text() -> None:
    key = generate_key()
    other = load_private(private_pem(key))
    trusted = load_trusted(dump_trusted(trust("api-gateway", key.public_key(), AUDIENCES)))
    token = Issuer("api-gateway", other).issue(PRINCIPAL, audience="request-manager", method="GET", path="/")
    assert Verifier("request-manager", trusted).verify(token, "GET", "/").principal == PRINCIPAL


def test_another_kind_of_private_key_is_refused() -> None:
    curve = generate_private_key(SECP256R1())
    pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ValueError, match="expected an Ed25519 private key"):
        load_private(pem)


@pytest.mark.parametrize(
    "text", ["", "{}", '[{"x":"AA","issuer":"a","audiences":[]}]', '[{"x":"!","issuer":"a"}]', "[1]"]
)
def test_trusted_keys_that_are_not_as_expected_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load_trusted(text)


async def test_nobody_is_known_by_default() -> None:
    assert await DenyAll().authenticate(Headers({"authorization": "Bearer anything"})) is None


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
async def test_the_dev_key_is_the_developer(scheme: str) -> None:
    who = await DevKey("flotilla-dev-1").authenticate(Headers({"authorization": f"{scheme}flotilla-dev-1"}))
    assert who is not None
    assert (who.subject, who.tenant, who.credential) == ("developer", "default", "dev-key")


@pytest.mark.parametrize(
    "header",
    ["", "flotilla-dev-1", "Bearer ", "Bearer flotilla-dev-", "Bearer flotilla-dev-11", "Basic flotilla-dev-1", "é"],
)
async def test_any_other_key_is_nobody(header: str) -> None:
    assert await DevKey("flotilla-dev-1").authenticate(Headers({"authorization": header})) is None
    assert await DevKey("flotilla-dev-1").authenticate(Headers({})) is None


async def test_a_route_that_requires_identity_gets_it_or_answers_401() -> None:
    issuer, verifier = pair()
    router = APIRouter()

    @router.get("/me")
    async def me(identity: Identity = Depends(require_scope(verifier, "requests"))) -> str:  # noqa: B008, FAST002 - a local verifier cannot be in an annotation
        return identity.principal.subject

    async def ready() -> None:
        return

    app = create_app("test", routers=[router], ready=ready)
    token = issuer.issue(PRINCIPAL, audience="request-manager", method="GET", path="/me")
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/me", headers={IDENTITY_HEADER: token})).json() == "ada"
        for headers in ([], [(IDENTITY_HEADER, "forged")], [(IDENTITY_HEADER, token), (IDENTITY_HEADER, token)]):
            answer = await client.get("/me", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["type"] == "urn:flotilla:problem:no-identity"

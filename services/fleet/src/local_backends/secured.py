"""Kafka and Redis with TLS, users and access rules, as a production cluster has them, for tests and for trying it out.

Kafka checks the ACLs of its users with its own StandardAuthorizer: what no ACL allows is refused.
"""

import base64
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from local_backends.certificates import make_certificate
from local_backends.kafka import running_broker
from local_backends.server import MissingProgram, Server, free_port, own_folder
from shared_clients.bus.kafka_cluster import KafkaCluster
from shared_clients.errors import Permanent

ADMIN: Final = "admin"

type Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_LISTENERS = """\
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {plain};
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={oauth_module} \
required unsecuredLoginStringClaim_sub="admin";
ssl.keystore.type=PEM
ssl.keystore.location={key_and_certificate}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# the controller's listener has no users: only this process reaches its port
super.users=User:admin;User:ANONYMOUS
"""


class Resource(IntEnum):
    """Kinds of resources in Kafka's protocol."""

    TOPIC = 2
    GROUP = 3


class Operation(IntEnum):
    """Operations in Kafka's protocol."""

    READ = 3
    WRITE = 4


_LITERAL, _ALLOW = 3, 3


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """A broker with users and ACLs.

    Attributes:
        server: the broker.
        servers: its `host:port`.
        ca: the certificate of its authority.
        folder: of the users' password and token files.
    """

    server: Server
    servers: str
    ca: Path
    folder: Path

    def url_of(self, user: str, mechanism: Mechanism) -> str:
        """Return the bus URL by which a process is this user."""
        return _url(self.servers, self.ca, self.folder, user, mechanism)

    async def allow(self, user: str, operation: Operation, resource: Resource, name: str) -> None:
        """Add an ACL.

        Raises:
            Permanent: the broker refuses the ACL.
        """
        admin = AIOKafkaAdminClient(**KafkaCluster.parse(self.url_of(ADMIN, "PLAIN")).client_arguments())
        await admin.start()
        try:
            request = CreateAclsRequest(resource, name, _LITERAL, f"User:{user}", "*", operation, _ALLOW)
            answer = await admin._send_to_controller(request)  # noqa: SLF001 - aiokafka has no public call for ACLs
        finally:
            await admin.close()
        for code, message in (outcome[:2] for outcome in answer.creation_responses):
            if code:
                raise Permanent(f"the ACL of {user} for {name} is not added: {message} (Kafka error {code})")


@asynccontextmanager
async def running_secured_kafka(folder: Path, users: Sequence[str]) -> AsyncIterator[SecuredKafka]:
    """Run a broker with TLS and SASL whose users may do nothing until an ACL allows it.

    Raises:
        MissingProgram: there is no Java, or no Maven to fetch the broker with.
        Permanent: it cannot run; the message ends with the end of its log.
    """
    folder = own_folder(folder)
    certificate = make_certificate(folder)
    passwords = {user: secrets.token_hex(16) for user in (ADMIN, *users)}
    credentials = own_folder(folder / "users")
    for user, password in passwords.items():
        for kind, content in (("password", password), ("token", _unsigned_token(user))):
            path = credentials / f"{user}.{kind}"
            path.touch(mode=0o600)
            path.write_text(content)
    known = " ".join(f'user_{user}="{password}"' for user, password in passwords.items())
    port, controller = free_port(), free_port()
    listeners = _LISTENERS.format(
        oauth_module="org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule",
        port=port,
        controller=controller,
        plain=f'username="{ADMIN}" password="{passwords[ADMIN]}" {known}',
        key_and_certificate=certificate.key_and_certificate,
        ca=certificate.ca,
    )
    scram = [
        f"SCRAM-SHA-{bits}=[name={user},password={password}]"
        for user, password in passwords.items()
        for bits in (256, 512)
    ]
    servers = f"127.0.0.1:{port}"
    url = _url(servers, certificate.ca, credentials, ADMIN, "PLAIN")
    async with running_broker(folder, url, listeners, controller, scram) as server:
        yield SecuredKafka(server, servers, certificate.ca, credentials)


def _url(servers: str, ca: Path, credentials: Path, user: str, mechanism: Mechanism) -> str:
    secret = (
        f"sasl_token_file={credentials / f'{user}.token'}"
        if mechanism == "OAUTHBEARER"
        else f"sasl_username={user}&sasl_password_file={credentials / f'{user}.password'}"
    )
    return f"kafka://{servers}?security_protocol=SASL_SSL&sasl_mechanism={mechanism}&{secret}&ssl_ca_file={ca}"


def _unsigned_token(user: str) -> str:
    """Return a JWT without a signature (RFC 7515, `none`), which Kafka's test validator accepts for a day."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + 86_400})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


_REDIS = """\
bind 127.0.0.1
port 0
tls-port {port}
tls-cert-file {certificate}
tls-key-file {key}
tls-ca-cert-file {ca}
tls-auth-clients no
dir "{folder}"
save ""
user default off
user {user} on >{password} ~frames:* ~frames-bell:* &* +@all -@dangerous
"""


@dataclass(frozen=True, slots=True)
class SecuredRedis:
    """A Redis with TLS and one user.

    Attributes:
        url: with the user, the password and the authority's certificate.
        anonymous_url: the same without user and password.
    """

    url: str
    anonymous_url: str


@asynccontextmanager
async def running_secured_redis(folder: Path, user: str) -> AsyncIterator[SecuredRedis]:
    """Run a Redis that speaks only TLS, and lets one user touch only the keys of runs' frames.

    Raises:
        MissingProgram: there is no redis-server here.
        Permanent: it cannot run; the message ends with the end of its log.
    """
    program = shutil.which("redis-server")
    if not program:
        raise MissingProgram("Redis: install it with `apt-get install redis-server` (or `brew install redis`)")
    folder = own_folder(folder)
    files, port, password = make_certificate(folder), free_port(), secrets.token_urlsafe(32)
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        _REDIS.format(
            port=port,
            certificate=files.certificate,
            key=files.key,
            ca=files.ca,
            folder=folder,
            user=user,
            password=password,
        )
    )
    address = f"127.0.0.1:{port}/0?ssl_ca_certs={files.ca}"
    url = f"rediss://{user}:{password}@{address}"

    async def is_ready() -> bool:
        async with Redis.from_url(url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False

    server = Server(url, [program, str(configuration)], folder, is_ready=is_ready, parent_death_signal="TERM")
    try:
        await server.start()
        yield SecuredRedis(url, f"rediss://{address}")
    finally:
        await server.stop()

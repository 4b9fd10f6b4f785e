"""Backends in Docker, for a machine without the programs. Only `find` imports this module: it needs testcontainers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from local_backends import kafka, postgres, redis
from local_backends.server import MissingProgram, free_port
from shared_clients.errors import Permanent

_POLL_SECONDS = 0.2
_KAFKA = {  # naming one property discards all of the image's own
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_HEAP_OPTS": "-Xms256m -Xmx256m",
    "KAFKA_JVM_PERFORMANCE_OPTS": " ".join(kafka.FAST_START),
}


@dataclass(frozen=True)
class _Plan:
    """A container that is to be started.

    Attributes:
        container: the container.
        address: its address, with `{host}` and `{port}` for the published ones.
        port: the port inside the container.
        is_ready: tells whether the server at an address accepts work.
    """

    container: DockerContainer
    address: str
    port: int
    is_ready: Callable[[str], Awaitable[bool]]


@asynccontextmanager
async def run_container(kind: str, missing: MissingProgram) -> AsyncIterator[str]:
    """Run a backend in a container, and yield its address; the container is removed at the end.

    Raises:
        MissingProgram: Docker does not answer either.
        Permanent: the container runs, and its server accepts no work.
    """
    try:
        await asyncio.to_thread(DockerClient().client.ping)
    except DockerException as error:
        raise MissingProgram(f"{missing}, or start Docker ({error})") from missing
    plan = _PLANS[kind]()
    try:
        await asyncio.to_thread(plan.container.start)
        yield await _wait_until_ready(plan)
    finally:
        await asyncio.to_thread(plan.container.stop)


async def _wait_until_ready(plan: _Plan, *, seconds: float = 180.0) -> str:
    host, port = plan.container.get_container_host_ip(), plan.container.get_exposed_port(plan.port)
    url = plan.address.format(host=host, port=port)
    for _ in range(round(seconds / _POLL_SECONDS)):
        if await plan.is_ready(url):
            return url
        await asyncio.sleep(_POLL_SECONDS)
    raise Permanent(f"The container of {plan.container.image} does not answer after {seconds:.0f} s: see `docker logs`")


def _postgres() -> _Plan:
    password = secrets.token_urlsafe(32)
    container = DockerContainer("pgvector/pgvector:pg18").with_exposed_ports(5432)
    container.with_envs(POSTGRES_PASSWORD=password, POSTGRES_DB="flotilla")
    address = f"postgresql+asyncpg://postgres:{password}@{{host}}:{{port}}/flotilla"
    return _Plan(container, address, 5432, postgres.is_ready)


def _redis() -> _Plan:
    password = secrets.token_urlsafe(32)
    container = DockerContainer("redis:7").with_exposed_ports(6379)
    container.with_command(["redis-server", "--requirepass", password])
    return _Plan(container, f"redis://:{password}@{{host}}:{{port}}/0", 6379, redis.is_ready)


def _kafka() -> _Plan:
    port = free_port()  # a broker sends its address to its clients, so the port is chosen before it starts
    container = DockerContainer("apache/kafka:4.3.1").with_bind_ports(9092, port)
    advertised = f"PLAINTEXT://{container.get_docker_client().host()}:{port}"
    container.with_envs(**_KAFKA, KAFKA_ADVERTISED_LISTENERS=advertised)
    return _Plan(container, "kafka://{host}:{port}", 9092, kafka.is_ready)


_PLANS = {"postgres": _postgres, "redis": _redis, "kafka": _kafka}

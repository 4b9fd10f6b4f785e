"""Backends in Docker, for a machine that lacks the programs: entered by `find` alone, for it needs testcontainers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from fleet.backends.server import Missing, free_port

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
}


@asynccontextmanager
async def running(kind: str, missing: Missing) -> AsyncIterator[str]:
    """Run a backend in a container and give its address; the container goes when we go.

    Raises:
        Missing: Docker does not answer either.
    """
    try:
        await asyncio.to_thread(DockerClient().client.ping)
    except DockerException as error:
        raise Missing(f"{missing}, or start Docker ({error})") from missing
    container, url = _PLANS[kind]()
    try:
        await asyncio.to_thread(container.start)
        yield url(container)
    finally:
        await asyncio.to_thread(container.stop)


def _postgres() -> tuple[DockerContainer, Callable[[DockerContainer], str]]:
    password = secrets.token_urlsafe(32)
    container = DockerContainer("pgvector/pgvector:pg18").with_exposed_ports(5432)
    container.with_envs(POSTGRES_PASSWORD=password, POSTGRES_DB="flotilla")
    container.waiting_for(LogMessageWaitStrategy("ready to accept connections", times=2))
    return container, lambda c: f"postgresql+asyncpg://postgres:{password}@{_address(c, 5432)}/flotilla"


def _redis() -> tuple[DockerContainer, Callable[[DockerContainer], str]]:
    password = secrets.token_urlsafe(32)
    container = DockerContainer("redis:7").with_exposed_ports(6379)
    container.with_command(["redis-server", "--requirepass", password])
    container.waiting_for(LogMessageWaitStrategy("Ready to accept connections"))
    return container, lambda c: f"redis://:{password}@{_address(c, 6379)}/0"


def _kafka() -> tuple[DockerContainer, Callable[[DockerContainer], str]]:
    port = free_port()
    container = DockerContainer("apache/kafka:4.3.1").with_bind_ports(9092, port)
    container.with_envs(**_KAFKA, KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://localhost:{port}")
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    return container, lambda c: f"kafka://{c.get_container_host_ip()}:{port}"


def _address(container: DockerContainer, port: int) -> str:
    return f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"


_PLANS = {"postgres": _postgres, "redis": _redis, "kafka": _kafka}

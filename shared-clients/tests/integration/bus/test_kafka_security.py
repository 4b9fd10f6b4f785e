"""The bus on a real broker with TLS, SASL and ACLs: a service is who its password says, and writes only what it may."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from conftest import Background
from local_backends.secured import ADMIN, Mechanism, Operation, Resource, SecuredKafka, running_secured_kafka
from shared_clients.bus import ensure_topics, open_bus
from shared_clients.bus.port import Bus, Message
from shared_clients.errors import Transient
from shared_models.catalog import EVENTS, TOPICS, topics_of, topics_written_by

SERVICES = sorted({name for event in EVENTS.values() for name in (*event.producers, *event.consumers)})
STRANGER = "stranger"
MECHANISMS: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def cluster(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A broker whose ACLs are made from the catalogue, as the page on securing the stores makes them."""
    running = running_secured_kafka(tmp_path_factory.mktemp("secured-kafka"), [*SERVICES, STRANGER])
    cluster = background.run(running.__aenter__())
    background.run(prepare(cluster))
    yield cluster
    background.run(running.__aexit__(None, None, None))


async def prepare(cluster: SecuredKafka) -> None:
    await ensure_topics(cluster.url_of(ADMIN, "SCRAM-SHA-512"), TOPICS, partitions=1)
    for service in SERVICES:
        for topic in topics_written_by(service):
            await cluster.allow(service, Operation.WRITE, Resource.TOPIC, topic)
        for topic in topics_of(service):
            await cluster.allow(service, Operation.READ, Resource.TOPIC, topic)
        await cluster.allow(service, Operation.READ, Resource.GROUP, service)


def message(topic: str) -> Message:
    return Message(topic, "k", {"specversion": "1.0", "id": str(uuid4()), "source": "/s", "type": "t"}, b"{}")


@asynccontextmanager
async def receiving(bus: Bus, service: str, topics: frozenset[str]) -> AsyncGenerator[asyncio.Queue[str]]:
    received: asyncio.Queue[str] = asyncio.Queue(1000)

    async def handle(incoming: Message) -> None:
        await received.put(incoming.attributes["id"])

    async with bus.subscribe(service, topics, handle):
        yield received


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_events_travel_between_authenticated_services(cluster: SecuredKafka, mechanism: Mechanism) -> None:
    for event in EVENTS.values():
        (producer,), (consumer,) = event.producers, event.consumers
        sent = message(event.topic)
        async with (
            open_bus(cluster.url_of(producer, mechanism)) as producing,
            open_bus(cluster.url_of(consumer, mechanism)) as consuming,
            receiving(consuming, consumer, topics_of(consumer)) as received,
            asyncio.timeout(60),
        ):
            await producing.publish(sent)
            while await received.get() != sent.attributes["id"]:
                pass  # the events of earlier cases come first


async def test_a_service_cannot_write_to_a_topic_of_another_producer(cluster: SecuredKafka) -> None:
    refused = 0
    for service in SERVICES:
        async with open_bus(cluster.url_of(service, "SCRAM-SHA-512")) as bus:
            for topic in TOPICS - topics_written_by(service):
                with pytest.raises(Transient, match="its ACLs do not let this user write"):
                    await bus.publish(message(topic))
                refused += 1
    assert refused == len(SERVICES) * len(TOPICS) - sum(len(topics_written_by(one)) for one in SERVICES) > 0


async def test_a_user_without_acls_can_do_nothing(cluster: SecuredKafka) -> None:
    async with open_bus(cluster.url_of(STRANGER, "PLAIN")) as bus:
        for topic in TOPICS:
            with pytest.raises(Transient):
                await bus.publish(message(topic))


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_wrong_password_or_token_is_refused(
    cluster: SecuredKafka, mechanism: Mechanism, tmp_path: Path
) -> None:
    url, wrong = cluster.url_of("agent-service", mechanism), tmp_path / "wrong"
    wrong.write_text("wrong")
    files = [part for part in url.split("&") if part.startswith(("sasl_password_file=", "sasl_token_file="))]
    assert len(files) == 1
    name = files[0].partition("=")[0]
    async with open_bus(url.replace(files[0], f"{name}={wrong}")) as bus:
        with pytest.raises(Transient):
            await bus.publish(message("flotilla.responses"))


async def test_a_broker_that_the_authority_does_not_vouch_for_is_refused(cluster: SecuredKafka) -> None:
    url = cluster.url_of("agent-service", "PLAIN").replace(f"&ssl_ca_file={cluster.ca}", "")
    async with open_bus(url) as bus:
        with pytest.raises(Transient):
            await bus.publish(message("flotilla.responses"))


async def test_a_connection_without_encryption_is_refused(cluster: SecuredKafka) -> None:
    async with open_bus(f"kafka://{cluster.servers}") as bus:
        with pytest.raises(Transient):
            await bus.publish(message("flotilla.responses"))

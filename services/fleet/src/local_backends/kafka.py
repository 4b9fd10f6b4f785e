"""Kafka as a backend: one broker that is its own controller (KRaft), run by this machine's Java.

Maven fetches the jars once, into a cache outside the clone.
"""

import asyncio
import base64
import hashlib
import logging
import shutil
import tempfile
import uuid
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from local_backends.server import Backend, MissingProgram, Server, free_port, own_folder
from shared_clients.bus.kafka_cluster import KafkaCluster
from shared_clients.errors import Permanent

_POM = Path(__file__).with_name("kafka.pom.xml")
FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # starts in half the time; throughput is halved as well

_LISTENERS = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more_listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more_advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"""
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
# a broker that restarts after kill -9 waits until its old session ends: 3-7 s with these values, 12-15 s with the
# defaults
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
"""


@dataclass(frozen=True, slots=True)
class ProxiedListener:
    """A further listener of a broker, which clients reach through a proxy.

    Attributes:
        broker_port: the port on which the broker listens.
        proxy_port: the port that the broker advertises to clients of this listener.
    """

    broker_port: int
    proxy_port: int


@asynccontextmanager
async def running_kafka(
    folder: Path, port: int | None = None, *, proxied: ProxiedListener | None = None
) -> AsyncIterator[Backend]:
    """Run a broker in a folder, which keeps its topics from one run to the next.

    Args:
        folder: the folder for its data and its log.
        port: the port of its address; any free one by default.
        proxied: a further listener, for tests that put a proxy in between.

    Raises:
        MissingProgram: there is no Java, or no Maven to fetch the broker with.
        Permanent: it cannot run; the message ends with the end of its log.
    """
    port, controller = port or free_port(), free_port()
    ports = (proxied.broker_port, proxied.proxy_port) if proxied else ()
    more_listeners, more_advertised = [f",PROXIED://127.0.0.1:{number}" for number in ports] or ["", ""]
    more = {"more_listeners": more_listeners, "more_advertised": more_advertised}
    listeners = _LISTENERS.format(port=port, controller=controller, **more)
    async with running_broker(folder, f"kafka://127.0.0.1:{port}", listeners, controller) as server:
        yield server


@asynccontextmanager
async def running_broker(
    folder: Path, url: str, listeners: str, controller: int, users: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Run a broker with listeners of the caller's choice.

    Args:
        folder: the folder for its data and its log.
        url: its address, as the bus takes it.
        listeners: the lines of its properties that configure its listeners.
        controller: the port of its controller.
        users: SCRAM credentials to make together with the data, as `--add-scram` of Kafka's tool takes them.

    Raises:
        MissingProgram: there is no Java, or no Maven to fetch the broker with.
        Permanent: it cannot run; the message ends with the end of its log.
    """
    java = shutil.which("java")
    if not java:
        raise MissingProgram("Kafka: install Java 17 or newer with `apt-get install default-jdk-headless`")
    libraries = await kafka_libraries()
    folder = own_folder(folder)
    data = own_folder(folder / "data")
    properties = folder / "server.properties"
    properties.touch(mode=0o600)
    properties.write_text(listeners + _PROPERTIES.format(controller=controller, data=data))
    classes = ("-cp", f"{libraries}/*")
    if not (data / "meta.properties").exists():
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        format_data = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties)]
        scram = [argument for user in users for argument in ("--add-scram", user)]
        command = [java, "-Xmx64m", *FAST_START, *classes, *format_data, *scram]
        await _run_to_end(command, "Kafka's data folder cannot be made")
    broker = [java, "-Xms256m", "-Xmx256m", *FAST_START, *classes, "kafka.Kafka", str(properties)]
    server = Server(url, broker, folder, is_ready=lambda: is_ready(url), parent_death_signal="KILL")
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


async def is_ready(url: str) -> bool:
    """Tell whether the broker has joined its cluster; its port is open earlier."""
    cluster = KafkaCluster.parse(url)
    try:
        # aiokafka logs each refusal as an error
        _, probe = await asyncio.open_connection(*cluster.servers[0].split(":"))
        probe.close()
        await probe.wait_closed()
        client = AIOKafkaAdminClient(**cluster.client_arguments(), request_timeout_ms=1000)
        try:
            await client.start()
            return bool((await client.describe_cluster())["brokers"])
        finally:
            await client.close()
    except (OSError, KafkaError):
        return False


async def kafka_libraries() -> Path:
    """Return the folder of the broker's jars, which are fetched if they are missing.

    Raises:
        MissingProgram: the jars are missing, and Maven too.
        Permanent: Maven could not fetch them.
    """
    libraries = _libraries()
    if libraries.exists():
        return libraries
    maven = shutil.which("mvn")
    if not maven:
        raise MissingProgram("Kafka: install Maven to fetch it with `apt-get install maven` (or `brew install maven`)")
    logging.getLogger(__name__).info("fetching Kafka into %s (44 MB, once)", libraries)
    unfinished = Path(tempfile.mkdtemp(dir=own_folder(libraries.parent)))
    shutil.copy(_POM, unfinished / "pom.xml")
    copy = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished / 'jars'}")
    try:
        await _run_to_end(
            [maven, "-q", "-B", "-Dstyle.color=never", "-f", str(unfinished / "pom.xml"), *copy],
            "Maven cannot fetch Kafka (network? disk?)",
        )
        if not libraries.exists():
            (unfinished / "jars").rename(libraries)
    finally:
        shutil.rmtree(unfinished)
    return libraries


def _libraries() -> Path:
    return Path.home() / ".cache" / "flotilla" / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"


async def _run_to_end(command: list[str], failure: str) -> None:
    child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    output, _ = await child.communicate()
    if child.returncode:
        raise Permanent(f"{failure}: {output.decode(errors='replace').strip()[:600]}")

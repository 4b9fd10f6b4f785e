"""Backends of this machine: after kill -9 they serve again what they were told; none outlives its owner."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from local_backends import Backend, MissingProgram, find_backend, running_kafka, running_postgres, running_redis
from shared_clients.errors import Permanent

OWNER = """
import asyncio, pathlib
from local_backends import running_{kind}
async def main():
    async with running_{kind}(pathlib.Path({folder!r})) as backend:
        print(backend.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def postgres_keeps(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE kept AS SELECT 'kept' AS word")
    await connection.close()


async def postgres_kept(url: str) -> str:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    word = await connection.fetchval("SELECT word FROM kept")
    await connection.close()
    return str(word)


async def redis_keeps(url: str) -> None:
    async with Redis.from_url(url, decode_responses=True) as client:
        await client.set("word", "kept")


async def redis_kept(url: str) -> str:
    async with Redis.from_url(url, decode_responses=True) as client:
        return str(await client.get("word"))


async def kafka_keeps(url: str) -> None:
    address = url.removeprefix("kafka://")
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("words", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=address, acks="all") as producer:
        await producer.send_and_wait("words", b"kept")


async def kafka_kept(url: str) -> str:
    async with AIOKafkaConsumer(bootstrap_servers=url.removeprefix("kafka://")) as consumer:
        consumer.assign([TopicPartition("words", 0)])
        await consumer.seek_to_beginning()
        return str((await consumer.getone()).value.decode())


@dataclass(frozen=True)
class Trial:
    running: Callable[[Path], AbstractAsyncContextManager[Backend]]
    keeps: Callable[[str], Awaitable[None]]
    kept: Callable[[str], Awaitable[str]]


TRIALS = {
    "postgres": Trial(running_postgres, postgres_keeps, postgres_kept),
    "redis": Trial(running_redis, redis_keeps, redis_kept),
    "kafka": Trial(running_kafka, kafka_keeps, kafka_kept),
}
KINDS = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in TRIALS]


def ended(pid: int, seconds: float = 10.0) -> bool:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_backend_serves_again_at_the_same_address_with_what_it_was_told(kind: str, tmp_path: Path) -> None:
    trial = TRIALS[kind]
    async with trial.running(tmp_path / kind) as backend:
        url, pid = backend.url, backend.pid
        await trial.keeps(url)
        await backend.kill()
        assert ended(pid, 0.1)
        await backend.restart()
        assert backend.pid != pid
        assert await trial.kept(url) == "kept"
        last = backend.pid
    assert ended(last, 0.1)
    async with trial.running(tmp_path / kind) as backend:
        assert await trial.kept(backend.url) == "kept"


@pytest.mark.parametrize("kind", KINDS)
def test_backend_dies_with_its_killed_owner(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER.format(kind=kind, folder=str(tmp_path / kind))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        owner.kill()
    assert ended(pid)


@pytest.mark.redis
async def test_redis_wants_its_password(tmp_path: Path) -> None:
    async with running_redis(tmp_path) as backend, Redis.from_url(f"redis://{backend.url.partition('@')[2]}") as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


@pytest.mark.redis
async def test_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with running_redis(tmp_path / "first") as first:
        port = int(first.url.rpartition(":")[2].removesuffix("/0"))
        with pytest.raises(Permanent, match=rf"ended with status 1: .*{port}.*Address already in use"):
            await running_redis(tmp_path / "second", port).__aenter__()


@pytest.mark.parametrize("docker", [False, True])
async def test_given_address_goes_first(tmp_path: Path, docker: bool) -> None:
    async with find_backend("redis", "redis://elsewhere", tmp_path / "unused", docker=docker) as url:
        assert url == "redis://elsewhere"


@pytest.mark.redis
async def test_docker_where_it_is_asked_for_goes_before_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(MissingProgram, match=r"redis in a container.* or start Docker"):
        await find_backend("redis", None, tmp_path, docker=True).__aenter__()


async def test_missing_program_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(MissingProgram, match=r"install it with `apt-get install redis-server`.* or start Docker"):
        await find_backend("redis", None, tmp_path).__aenter__()

"""The connections of a process to Redis, in the process and outside of it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared_clients.redis import COMMANDS_PER_BATCH, REDIS_ERRORS, Redis, exchange, open_redis
from shared_models.ids import new_id


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with open_redis("memory://" if request.param == "memory" else request.getfixturevalue("redis_url")) as redis:
        yield redis


async def test_everybody_gets_the_replies_to_their_own_commands(redis: Redis) -> None:
    keys = [f"test:{new_id()}" for _ in range(3 * COMMANDS_PER_BATCH)]

    replies = await asyncio.gather(
        *(redis.batched.send(("SET", key, key), ("EXPIRE", key, 60), ("GET", key)) for key in keys)
    )

    assert replies == [[b"OK", 1, key.encode()] for key in keys]


async def test_an_error_is_the_reply_to_its_own_command_only(redis: Redis) -> None:
    key = f"test:{new_id()}"

    made, wrong, kept = await redis.batched.send(("SET", key, "text", "EX", 60), ("XLEN", key), ("GET", key))

    assert (made, kept) == (b"OK", b"text")
    assert isinstance(wrong, ResponseError)


async def test_who_stops_waiting_takes_no_reply_from_others(redis: Redis) -> None:
    leaving = asyncio.ensure_future(redis.batched.send(("ECHO", "mine")))
    staying = asyncio.ensure_future(redis.batched.send(("ECHO", "yours")))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == [b"yours"]


async def test_an_absent_redis_fails_every_waiting_call() -> None:
    async with open_redis("redis://127.0.0.1:9") as nowhere:
        answers = await asyncio.gather(*(nowhere.batched.send(("PING",)) for _ in range(3)), return_exceptions=True)

    assert all(isinstance(answer, REDIS_ERRORS) for answer in answers)


async def test_closed_connections_fail_waiting_and_later_calls(redis: Redis) -> None:
    async with open_redis("redis://127.0.0.1:9") as closing:
        waiting = asyncio.ensure_future(closing.batched.send(("PING",)))
        await asyncio.sleep(0)

    with pytest.raises(REDIS_ERRORS):
        await waiting
    with pytest.raises(RedisConnectionError, match="closed"):
        await closing.batched.send(("PING",))


async def test_a_redis_inside_the_process_is_its_openers_alone() -> None:
    async with open_redis("memory://") as one, open_redis("memory://") as other:
        await one.batched.send(("SET", "key", "value"))

        assert await other.batched.send(("GET", "key")) == [None]


async def test_an_address_of_another_kind_is_refused_without_its_secrets() -> None:
    with pytest.raises(ValueError, match="got the scheme 'http'") as refused:
        async with open_redis("http://:secret@host"):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.redis
async def test_a_redis_at_a_unix_socket_answers_commands_and_blocking_reads(tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    assert program is not None, "install it with: apt-get install redis-server"
    path = tmp_path / "redis.sock"
    arguments = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    server = await asyncio.create_subprocess_exec(program, *arguments)
    try:
        async with asyncio.timeout(20):
            while not path.exists():  # noqa: ASYNC110 - the server makes the socket when it listens
                await asyncio.sleep(0.01)
        async with open_redis(f"unix://{path}") as redis:
            assert await redis.batched.send(("SET", "a", "b"), ("GET", "a")) == [b"OK", b"b"]
            assert await exchange(redis.blocking, [("XREAD", "BLOCK", 1, "STREAMS", "none", "0-0")]) == [None]
    finally:
        server.terminate()
        await server.wait()

"""Redis with TLS and users: the URL of a process says who it is and which authority it believes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError

from local_backends.secured import SecuredRedis, running_secured_redis
from shared_clients.redis import REDIS_ERRORS, open_redis

pytestmark = pytest.mark.redis


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[SecuredRedis]:
    async with running_secured_redis(tmp_path / "redis", "agent-service") as redis:
        yield redis


async def test_a_user_with_a_password_reaches_its_own_keys_over_tls(secured: SecuredRedis) -> None:
    async with open_redis(secured.url) as redis:
        assert await redis.batched.send(("SET", "frames:a", "1"), ("GET", "frames:a")) == [b"OK", b"1"]
        assert await redis.blocking.xread({"frames:none": "0"}, block=1) == []
        [refused, dangerous] = await redis.batched.send(("SET", "other", "1"), ("CONFIG", "GET", "*"))
        assert isinstance(refused, NoPermissionError)
        assert isinstance(dangerous, NoPermissionError)


async def test_others_are_refused(secured: SecuredRedis) -> None:
    wrong_password = secured.url.replace(secured.url.split(":")[2].partition("@")[0], "wrong")
    unknown_authority = secured.url.partition("?")[0]
    without_tls = unknown_authority.replace("rediss://", "redis://")
    for url in (secured.anonymous_url, wrong_password, unknown_authority, without_tls):
        async with open_redis(url) as redis:
            with pytest.raises(REDIS_ERRORS):
                await redis.commands.get("frames:a")

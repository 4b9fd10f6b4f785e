"""Rates over all gateways, without a round trip in the way of a request.

Each process decides by its own buckets, at once. Five times a second it tells Redis what it let in, all keys in one
round trip, and hears what the others did. So what is let in beyond a limit is what fits in that fifth of a second, and
an accept costs no more than a look into a table. Without Redis, and before it has answered for the first time, each
process lets in its part: never all of it, and never everything.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from api_gateway.admission.buckets import Buckets, Policy, Room
from shared_clients.redis import REDIS_ERRORS, Command, Redis

SHARE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Within:
    """The request is let in.

    Attributes:
        rooms: what is left under each policy.
    """

    rooms: Sequence[Room]


@dataclass(frozen=True, slots=True)
class Over:
    """The request is over a policy's limit.

    Attributes:
        policy: whose.
        rooms: what is left under each policy.
        seconds: until it would be let in.
    """

    policy: Policy
    rooms: Sequence[Room]
    seconds: float


class Rates:
    """Several policies, of which a request must keep all.

    Args:
        policies: the narrowest first.
        redis: where processes tell each other.
        replicas: how many processes there are.
        clock: seconds that only go forward.
    """

    def __init__(
        self, policies: Sequence[Policy], redis: Redis, replicas: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = [Buckets(policy) for policy in policies]
        self._redis = redis
        self._replicas = replicas
        self._clock = clock
        self._alone = True

    def take(self, keys: Sequence[str]) -> Within | Over:
        """Take one request under each policy, or none where one is used up.

        Args:
            keys: whose quota it is under each policy.
        """
        now, share = self._clock(), self._replicas if self._alone else 1
        each = list(zip(self._buckets, keys, strict=True))
        rooms = [buckets.room(key, now, share) for buckets, key in each]
        for buckets, room in zip(self._buckets, rooms, strict=True):
            if room.left < 1:
                return Over(buckets.policy, rooms, room.seconds)
        for buckets, key in each:
            buckets.take(key, now, share)
        return Within([Room(room.left - 1, room.seconds) for room in rooms])

    async def share(self) -> None:
        """Tell the others what was let in here, and hear what they let in."""
        untold = [(buckets, key, bucket.taken) for buckets in self._buckets for key, bucket in buckets.untold()]
        if not untold and not self._alone:
            return
        commands: list[Command] = [("PING",)]
        for buckets, key, taken in untold:
            name = f"limits:{buckets.policy.name}:{key}"
            commands += [("INCRBY", name, taken), ("EXPIRE", name, buckets.policy.window, "NX")]
        try:
            _, *replies = await self._redis.batched.send(*commands)
        except REDIS_ERRORS as error:
            self._lose(error)
            return
        if refused := next((reply for reply in replies if isinstance(reply, Exception)), None):
            self._lose(refused)
        else:
            self._note(untold, [int(str(total)) for total in replies[::2]])

    def _note(self, told: Sequence[tuple[Buckets, str, int]], totals: Sequence[int]) -> None:
        now = self._clock()
        for (buckets, key, taken), total in zip(told, totals, strict=True):
            buckets.hear(key, taken, total, now)
        self._alone = False
        self._redis.writes.succeeded()

    def _lose(self, error: Exception) -> None:
        """Go on alone; what was let in meanwhile is told to nobody, for it was no more than our part."""
        self._alone = True
        self._redis.writes.failed(error)
        for buckets in self._buckets:
            for _, bucket in buckets.untold():
                bucket.taken = 0

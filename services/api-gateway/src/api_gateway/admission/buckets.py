"""Rates as leaky buckets: what was taken runs off evenly, and a bucket that is full takes nothing more.

Pure: time is handed in. A bucket also remembers what was taken since others were told, and what they had told us.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_KEYS: Final = 20_000
"""Buckets of one policy in one process; those that were used longest ago are forgotten."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One limit of a rate.

    Attributes:
        name: as clients see it.
        quota: requests in a window.
        window: seconds.
    """

    name: str
    quota: int
    window: int


@dataclass(slots=True)
class Bucket:
    """What one key has taken.

    Attributes:
        used: requests in it at the time `at`.
        taken: those of this process that nobody else knows of yet.
        told: what all had taken together when they were last heard of.
    """

    used: float
    at: float
    taken: int = 0
    told: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What a key may still take.

    Attributes:
        left: whole requests.
        seconds: until there is one more than that.
    """

    left: int
    seconds: float


class Buckets:
    """The buckets of one policy.

    Args:
        policy: theirs.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._buckets: dict[str, Bucket] = {}

    def room(self, key: str, now: float, share: int) -> Room:
        """Say what a key may still take, of the quota divided by `share`."""
        quota, rate = self._quota(share)
        bucket = self._buckets.get(key)
        free = quota - (self._used(bucket, now, rate) if bucket else 0.0)
        left = max(0, int(free))
        return Room(left, (left + 1 - free) / rate)

    def take(self, key: str, now: float, share: int) -> None:
        """Let a key take one."""
        bucket = self._at(key, now, share)
        bucket.used += 1
        bucket.taken += 1

    def untold(self) -> Iterator[tuple[str, Bucket]]:
        """Yield the buckets from which this process took since others were told."""
        return ((key, bucket) for key, bucket in self._buckets.items() if bucket.taken)

    def hear(self, key: str, told: int, total: int, now: float) -> None:
        """Take note of what all have taken in the running window: others fill our bucket, too.

        Args:
            key: whose.
            told: of ours, just told.
            total: of all, with ours. It begins anew with each window, and when Redis comes back empty.
            now: the time.
        """
        bucket = self._at(key, now, 1)
        since = bucket.told + told
        others = total - since if total >= since else total - told
        bucket.used = min(float(self.policy.quota), bucket.used + max(0, others))
        bucket.taken = max(0, bucket.taken - told)
        bucket.told = total

    def _at(self, key: str, now: float, share: int) -> Bucket:
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(0.0, now)
            while len(self._buckets) >= MOST_KEYS:
                self._buckets.pop(next(iter(self._buckets)))
        bucket.used, bucket.at = self._used(bucket, now, self._quota(share)[1]), now
        self._buckets[key] = bucket
        return bucket

    def _quota(self, share: int) -> tuple[float, float]:
        quota = max(1.0, self.policy.quota / share)
        return quota, quota / self.policy.window

    @staticmethod
    def _used(bucket: Bucket, now: float, rate: float) -> float:
        return max(0.0, bucket.used - (now - bucket.at) * rate)

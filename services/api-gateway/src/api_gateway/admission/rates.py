"""Rates: bound the requests of a caller, of a tenant and of all tenants in a window, over all gateways.

A request never waits for Redis. Each gateway decides by leaky buckets in its own memory; every `SYNC_SECONDS` it adds
its number of admitted requests to counters in Redis, in one round trip for all keys, and reads there how many the other
gateways admitted. So a limit can be exceeded by the requests that arrive within one such interval. Without Redis, and
before its first reply, each gateway admits an equal share of every rate, so that no outage lifts a limit.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import to_json

from api_gateway.admission.limits import (
    WINDOW_SECONDS,
    AdmissionLimits,
    limit_reached,
    overloaded,
    whole_seconds,
)
from shared_clients.redis import REDIS_ERRORS, Command, Redis
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal

SYNC_SECONDS: Final = 0.2
MAX_BUCKETS: Final = 20_000
"""Buckets of one policy in one process; beyond it, the least recently used bucket is dropped."""

type Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """One limit of a rate.

    Attributes:
        name: as clients see it in the RateLimit headers.
        quota: requests in one window.
        window: seconds.
    """

    name: str
    quota: int
    window: int


@dataclass(slots=True)
class Bucket:
    """The requests that one key has used up, as this process knows them.

    Attributes:
        level: requests in the bucket at the time `updated_at`; the bucket drains evenly.
        updated_at: seconds of the limiter's clock.
        unreported: requests that this process admitted and has not added to Redis yet.
        last_total: the count of all gateways in Redis at the last synchronisation.
    """

    level: float
    updated_at: float
    unreported: int = 0
    last_total: int = 0


@dataclass(frozen=True, slots=True)
class Remaining:
    """The rest of a key's quota.

    Attributes:
        requests: whole requests that would be admitted now.
        seconds: the time until one more request than that would be admitted.
    """

    requests: int
    seconds: float


class LeakyBuckets:
    """The buckets of one policy, one for each key; the caller of every method passes the time.

    Args:
        policy: quota and window of every bucket.
    """

    def __init__(self, policy: RatePolicy) -> None:
        self.policy = policy
        self._buckets: dict[str, Bucket] = {}

    def remaining(self, key: str, now: float, replicas: int) -> Remaining:
        """Return the rest of a key's quota, where the quota is divided among `replicas` gateways."""
        quota, rate = self._quota(replicas)
        bucket = self._buckets.get(key)
        free = quota - (_level_at(bucket, now, rate) if bucket else 0.0)
        requests = max(0, int(free))
        return Remaining(requests, (requests + 1 - free) / rate)

    def add_request(self, key: str, now: float, replicas: int) -> None:
        """Count one admitted request."""
        bucket = self._drained_bucket(key, now, replicas)
        bucket.level += 1
        bucket.unreported += 1

    def unreported(self) -> Iterator[tuple[str, Bucket]]:
        """Yield the buckets with requests that are not in Redis yet."""
        return ((key, bucket) for key, bucket in self._buckets.items() if bucket.unreported)

    def add_reported_total(self, key: str, reported: int, total: int, now: float) -> None:
        """Fill a bucket with the requests that other gateways admitted since the last synchronisation.

        Args:
            key: the bucket's.
            reported: this process's requests that were just added to Redis.
            total: the resulting count of all gateways. It starts at zero with every window, and after a loss of Redis.
            now: the time.
        """
        bucket = self._drained_bucket(key, now, 1)
        expected = bucket.last_total + reported
        of_others = total - expected if total >= expected else total - reported
        bucket.level = min(float(self.policy.quota), bucket.level + max(0, of_others))
        bucket.unreported = max(0, bucket.unreported - reported)
        bucket.last_total = total

    def _drained_bucket(self, key: str, now: float, replicas: int) -> Bucket:
        """Return a key's bucket, drained up to now, and mark it as the most recently used."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(0.0, now)
            while len(self._buckets) >= MAX_BUCKETS:
                self._buckets.pop(next(iter(self._buckets)))
        bucket.level, bucket.updated_at = _level_at(bucket, now, self._quota(replicas)[1]), now
        self._buckets[key] = bucket
        return bucket

    def _quota(self, replicas: int) -> tuple[float, float]:
        """Return one gateway's share of the quota, and the requests that drain from it in a second."""
        quota = max(1.0, self.policy.quota / replicas)
        return quota, quota / self.policy.window


def _level_at(bucket: Bucket, now: float, rate: float) -> float:
    return max(0.0, bucket.level - (now - bucket.updated_at) * rate)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request is within every policy.

    Attributes:
        remaining: the rest of the quota under each policy, in the order of the policies.
    """

    remaining: Sequence[Remaining]


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The request is over the limit of a policy.

    Attributes:
        policy: the first policy whose quota is used up.
        remaining: the rest of the quota under each policy, in the order of the policies.
        seconds: the time until the request would be admitted.
    """

    policy: RatePolicy
    remaining: Sequence[Remaining]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Report:
    """The requests of one key that a synchronisation adds to Redis."""

    buckets: LeakyBuckets
    key: str
    requests: int


class RateLimiter:
    """Admits requests that are within the rates of their caller, of its tenant and of the platform.

    Args:
        limits: the numbers.
        redis: holds the counters that gateways share.
        clock: seconds that only go forward.
    """

    def __init__(self, limits: AdmissionLimits, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = [
            LeakyBuckets(RatePolicy("caller", limits.caller, WINDOW_SECONDS)),
            LeakyBuckets(RatePolicy("tenant", limits.tenant, WINDOW_SECONDS)),
            LeakyBuckets(RatePolicy("platform", limits.platform, WINDOW_SECONDS)),
        ]
        self._redis = redis
        self._replicas = limits.replicas
        self._clock = clock
        self._redis_answers = False

    def admit(self, caller: Principal) -> Admitted | Exceeded:
        """Count one request under every policy, or under none where one quota is used up."""
        now, replicas = self._clock(), 1 if self._redis_answers else self._replicas
        keyed = list(zip(self._buckets, (_caller_key(caller), caller.tenant, "all"), strict=True))
        remaining = [buckets.remaining(key, now, replicas) for buckets, key in keyed]
        for buckets, rest in zip(self._buckets, remaining, strict=True):
            if rest.requests < 1:
                return Exceeded(buckets.policy, remaining, rest.seconds)
        for buckets, key in keyed:
            buckets.add_request(key, now, replicas)
        return Admitted([Remaining(rest.requests - 1, rest.seconds) for rest in remaining])

    def headers(self, decision: Admitted | Exceeded) -> list[Header]:
        """Return the RateLimit headers of a response, for the caller's and the tenant's policy."""
        own = [(buckets.policy, rest) for buckets, rest in zip(self._buckets, decision.remaining, strict=True)][:2]
        policies = ", ".join(f'"{policy.name}";q={policy.quota};w={policy.window}' for policy, _ in own)
        rests = ", ".join(f'"{policy.name}";r={rest.requests};t={whole_seconds(rest.seconds)}' for policy, rest in own)
        return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", rests.encode())]

    async def sync(self) -> None:
        """Add the admitted requests to Redis, and the other gateways' requests to the buckets."""
        reports = [
            _Report(buckets, key, bucket.unreported)
            for buckets in self._buckets
            for key, bucket in buckets.unreported()
        ]
        if not reports and self._redis_answers:
            return
        commands: list[Command] = [("PING",)]
        for report in reports:
            counter = f"limits:{report.buckets.policy.name}:{report.key}"
            window = report.buckets.policy.window
            commands += [("INCRBY", counter, report.requests), ("EXPIRE", counter, window, "NX")]
        try:
            _, *replies = await self._redis.batched.send(*commands)
        except REDIS_ERRORS as error:
            self._continue_without_redis(error)
            return
        if refused := next((reply for reply in replies if isinstance(reply, Exception)), None):
            self._continue_without_redis(refused)
        else:
            self._add_totals(reports, [int(str(total)) for total in replies[::2]])

    def _add_totals(self, reports: Sequence[_Report], totals: Sequence[int]) -> None:
        now = self._clock()
        for report, total in zip(reports, totals, strict=True):
            report.buckets.add_reported_total(report.key, report.requests, total, now)
        self._redis_answers = True
        self._redis.writes.succeeded()

    def _continue_without_redis(self, error: Exception) -> None:
        """Admit only this gateway's share from now on, and never report the requests of the outage.

        The requests of an outage were within this gateway's share, so the other gateways need not know of them.
        """
        self._redis_answers = False
        self._redis.writes.failed(error)
        for buckets in self._buckets:
            for _, bucket in buckets.unreported():
                bucket.unreported = 0


class SignInRate:
    """Admits requests to sign in that are within the rate of their address, counted in this process alone.

    Args:
        limits: the numbers.
        clock: seconds that only go forward.
    """

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = LeakyBuckets(RatePolicy("sign_in", limits.sign_in, WINDOW_SECONDS))
        self._clock = clock

    def admit(self, address: str) -> None:
        """Count one request.

        Raises:
            Problem: RATE_LIMITED: the address has used up its quota.
        """
        now = self._clock()
        rest = self._buckets.remaining(address, now, 1)
        if rest.requests < 1:
            raise rate_refusal(Exceeded(self._buckets.policy, [rest], rest.seconds))
        self._buckets.add_request(address, now, 1)


def rate_refusal(exceeded: Exceeded) -> Problem:
    """Return the refusal: OVERLOADED for the platform's rate, RATE_LIMITED for every other."""
    policy = exceeded.policy
    if policy.name == "platform":
        return overloaded(policy.name, exceeded.seconds)
    subject = "address" if policy.name == "sign_in" else policy.name
    detail = (
        f"This {subject} has used up its limit of {policy.quota} requests in {policy.window} seconds. "
        "Send the same request again after the number of seconds in Retry-After."
    )
    return limit_reached(policy.name, Problems.RATE_LIMITED, detail, whole_seconds(exceeded.seconds))


def _caller_key(caller: Principal) -> str:
    """Return the key of a caller's bucket, here and in Redis: a digest, because the key must not show the caller."""
    identity = to_json((caller.issuer, caller.credential, caller.subject))
    return f"{caller.tenant}:{hashlib.blake2b(identity, digest_size=16).hexdigest()}"

"""Who is let in: the rates of the caller, of its tenant and of the platform, and room for one more.

A limit is no identity: where Redis is away it is the narrower one, and never none.
"""

import hashlib
import math
import random
from collections.abc import Sequence

from pydantic_core import to_json
from starlette.types import Scope

from api_gateway.admission.buckets import Policy, Room
from api_gateway.admission.limits import WINDOW_SECONDS, AdmissionLimits
from api_gateway.admission.places import Fields, Place, Places, Stage, place_of
from api_gateway.admission.rates import Over, Rates
from shared_clients import metrics
from shared_clients.redis import Redis
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal


class Admission:
    """Decides for this process.

    Args:
        limits: the numbers.
        redis: where gateways tell each other what they let in.
    """

    def __init__(self, limits: AdmissionLimits, redis: Redis) -> None:
        self._policies = [
            Policy("caller", limits.caller, WINDOW_SECONDS),
            Policy("tenant", limits.tenant, WINDOW_SECONDS),
            Policy("platform", limits.platform, WINDOW_SECONDS),
        ]
        self.rates = Rates(self._policies, redis, limits.replicas)
        self.places = Places(limits)
        own = self._policies[:2]
        self._policy = ", ".join(f'"{policy.name}";q={policy.quota};w={policy.window}' for policy in own).encode()

    def enter(self, stage: Stage) -> Place:
        """Give a request a place.

        Raises:
            Problem: OVERLOADED, this process has its hands full.
        """
        for needed in (stage, Stage.IN_FLIGHT):
            if self.places.full(needed):
                raise _overloaded(needed, 1.0)
        return Place(self.places, stage)

    def admit(self, caller: Principal, scope: Scope) -> None:
        """Count a request of a caller who is known, and have its answer say how much is left.

        Raises:
            Problem: RATE_LIMITED for what is over the caller's or the tenant's rate, OVERLOADED for the platform's.
        """
        verdict = self.rates.take((_key_of(caller), caller.tenant, "all"))
        place_of(scope).fields = self._fields(verdict.rooms)
        if not isinstance(verdict, Over):
            return
        name = verdict.policy.name
        if name == "platform":
            raise _overloaded(name, verdict.seconds)
        metrics.ADMISSION_REFUSED.labels(name).inc()
        detail = f"This {name} has used up its {verdict.policy.quota} requests in {verdict.policy.window} s."
        raise Problem(Problems.RATE_LIMITED, detail, headers={"Retry-After": str(_whole(verdict.seconds))})

    def hold(self, caller: Principal, scope: Scope) -> None:
        """Let a request stay for long: a stream, or a call that waits for a result.

        Raises:
            Problem: TOO_MANY_OPEN where its tenant has too many of these, OVERLOADED where this process has.
        """
        if self.places.tenant_full(caller.tenant):
            metrics.ADMISSION_REFUSED.labels("tenant_open").inc()
            detail = (
                "This tenant has as many open streams and waiting calls as it may; end one, or poll for the result."
            )
            raise Problem(Problems.TOO_MANY_OPEN, detail, headers={"Retry-After": _soon(1.0)})
        if self.places.full(Stage.OPEN):
            raise _overloaded(Stage.OPEN, 1.0)
        self.places.move(place_of(scope), Stage.OPEN, caller.tenant)

    def _fields(self, rooms: Sequence[Room]) -> Fields:
        items = ", ".join(
            f'"{policy.name}";r={room.left};t={_whole(room.seconds)}'
            for policy, room in zip(self._policies[:2], rooms[:2], strict=True)
        )
        return [(b"ratelimit-policy", self._policy), (b"ratelimit", items.encode())]


def asks_to_wait(scope: Scope) -> bool:
    """Tell whether a call may stay for its result: by `Prefer: wait=N`, or by `?wait=N`."""
    return b"wait=" in scope["query_string"] or any(
        name == b"prefer" and b"wait" in value for name, value in scope["headers"]
    )


def _overloaded(limit: str, seconds: float) -> Problem:
    metrics.ADMISSION_REFUSED.labels(limit).inc()
    detail = "The platform has its hands full, and nothing was done. Send the request again after Retry-After."
    return Problem(Problems.OVERLOADED, detail, headers={"Retry-After": _soon(seconds)})


def _key_of(caller: Principal) -> str:
    """Name a caller: in a table for ever, in Redis for a window, so as a digest and under its tenant."""
    named = to_json((caller.issuer, caller.credential, caller.subject))
    return f"{caller.tenant}:{hashlib.blake2b(named, digest_size=16).hexdigest()}"


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _soon(seconds: float) -> str:
    """Ask different clients to come back at different times."""
    return str(_whole(seconds) + random.randint(0, 2))  # noqa: S311 - jitter, no secret

"""The numbers of admission control, each one a setting, and the refusal of a request that is over one of them.

The defaults are far above the traffic of a person or of a laptop: only a flood of requests meets them.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from shared_clients import metrics
from shared_clients.errors import Permanent
from shared_models.problems import Problem, Problems

WINDOW_SECONDS: Final = 10
"""The window of the three rates; a whole quota may be used at once, and is then restored evenly."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The limits of one gateway process.

    Attributes:
        caller: requests of one caller (a credential and the person behind it) in `WINDOW_SECONDS`, over all gateways.
        tenant: requests of one tenant in `WINDOW_SECONDS`, over all gateways.
        platform: requests of all tenants in `WINDOW_SECONDS`, over all gateways.
        in_flight: requests that this process works on at the same time.
        receiving: requests whose body this process is still receiving.
        open: streams and waiting calls of this process.
        signing_in: requests to sign in with a link that this process works on at the same time.
        sign_in: requests to sign in with a link from one address in `WINDOW_SECONDS`, in this process. Behind a proxy
            that is the proxy's address.
        tenant_open: streams and waiting calls of one tenant, over all gateways; each gateway admits an equal share.
        replicas: the number of gateways. While Redis is away, each gateway admits this fraction of every rate.
    """

    caller: int = 2_000
    tenant: int = 5_000
    platform: int = 20_000
    in_flight: int = 512
    receiving: int = 512
    open: int = 4_000
    signing_in: int = 32
    sign_in: int = 100
    tenant_open: int = 2_000
    replicas: int = 1

    @classmethod
    def from_setting(cls, overrides: Mapping[str, int]) -> Self:
        """Return the defaults, with the limits that the setting names in their place.

        Raises:
            Permanent: the setting has an unknown name, or a number below 1.
        """
        defaults = asdict(cls())
        for name, value in overrides.items():
            if name not in defaults:
                expected = f"expected a JSON object with some of the names {', '.join(defaults)}"
                raise Permanent(f"FLOTILLA_LIMITS has the unknown name {name[:40]!r}; {expected}")
            if value < 1:
                raise Permanent(f"FLOTILLA_LIMITS has {name}={value}; expected a whole number of at least 1")
        return cls(**{**defaults, **overrides})


def limit_reached(limit: str, kind: Problems, detail: str, retry_after: int) -> Problem:
    """Count a refusal under the name of its limit, and return the problem for the caller."""
    metrics.ADMISSION_REFUSED.labels(limit).inc()
    return Problem(kind, detail, headers={"Retry-After": str(retry_after)})


def overloaded(limit: str, seconds: float) -> Problem:
    """Return the refusal of a request that is over a limit of the platform or of this process."""
    detail = (
        f"The platform has reached its limit {limit!r}, so it did nothing with this request. "
        "Send the same request again after the number of seconds in Retry-After."
    )
    return limit_reached(limit, Problems.OVERLOADED, detail, jittered_seconds(seconds))


def whole_seconds(seconds: float) -> int:
    """Round a wait up to whole seconds, at least one."""
    return max(1, math.ceil(seconds))


def jittered_seconds(seconds: float) -> int:
    """Return a wait that differs from client to client, so that refused clients do not return all at once."""
    return whole_seconds(seconds) + random.randint(0, 2)  # noqa: S311 - jitter, no secret

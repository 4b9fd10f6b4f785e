"""The limits as numbers: generous, so that nobody meets them who does not flood us, and each one a setting."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from shared_clients.errors import Permanent

WINDOW_SECONDS: Final = 10
"""The rates below are for so long; all of it may come at once, and then it grows back evenly."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What is let in.

    Attributes:
        caller: requests of one caller (a credential and the person behind it), in `WINDOW_SECONDS`.
        tenant: requests of one tenant, likewise.
        platform: requests of all together, likewise; these three count over all gateways.
        in_flight: requests of this process that are being worked on.
        receiving: requests of this process whose body is still coming.
        open: streams and waiting calls of this process.
        tenant_open: streams and waiting calls of one tenant, over all gateways; each lets in its part.
        replicas: gateways there are; each of them lets in its part of a rate while Redis is away.
    """

    caller: int = 2_000
    tenant: int = 5_000
    platform: int = 20_000
    in_flight: int = 512
    receiving: int = 512
    open: int = 4_000
    tenant_open: int = 2_000
    replicas: int = 1

    @classmethod
    def of(cls, given: Mapping[str, int]) -> Self:
        """Return the limits with those that are given in place of the defaults.

        Raises:
            Permanent: one has an unknown name, or is below 1.
        """
        known = asdict(cls())
        for name, value in given.items():
            if name not in known:
                raise Permanent(f"FLOTILLA_LIMITS names {name[:40]!r}; expected some of {', '.join(known)}")
            if value < 1:
                raise Permanent(f"FLOTILLA_LIMITS has {name}={value}; expected at least 1")
        return cls(**{**known, **given})

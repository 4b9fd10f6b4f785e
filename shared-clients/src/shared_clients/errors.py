"""What can go wrong outside a service, in the four kinds that decide what to do next.

Adapters translate every foreign exception into one of these; loops and the inbox act on the kind alone. Messages may be
logged and shown to operators, so text from outside is truncated and secrets never get in.
"""


class OutsideError(Exception):
    """Base of the four; never raised itself."""


class Transient(OutsideError):  # noqa: N818 - the kind is the name
    """It did not happen, and the same call may succeed later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds the other side asked us to wait, where it did."""


class Permanent(OutsideError):  # noqa: N818 - as above
    """It did not happen, and the same call will never succeed."""


class Unknown(OutsideError):  # noqa: N818 - as above
    """It may have happened: nobody may try again without asking first."""


class Stale(OutsideError):  # noqa: N818 - as above
    """Somebody else owns this now: stop, and write nothing more."""

"""The errors of outside systems, in the four kinds that decide what to do next.

Adapters translate every foreign exception into one of these; loops and the inbox act on the kind alone. Messages may be
logged and shown to operators, so text from outside is truncated, and a message never holds a secret.
"""


class OutsideError(Exception):
    """The base of the four kinds; it is never raised itself."""


class Unconfirmed(OutsideError):  # noqa: N818 - the kind is the name
    """The base of `Transient` and `Unknown`: a caller whose second try cannot add an effect tries again."""


class Transient(Unconfirmed):
    """The call had no effect, and the same call may succeed later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait, where the other side named a time."""


class Permanent(OutsideError):  # noqa: N818 - as above
    """The call had no effect, and the same call will never succeed."""


class Unknown(Unconfirmed):
    """The call may have had its effect, because its answer was lost: check that before a second try."""


class Stale(OutsideError):  # noqa: N818 - as above
    """The work has another owner now: stop, and write nothing more."""

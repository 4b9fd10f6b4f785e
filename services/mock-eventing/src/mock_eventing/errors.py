"""What can be wrong with an event that was sent here, or with where it was sent."""

from typing import Final

MAX_PLACE: Final = 80
"""Characters of a place in a message; the name of an attribute is whatever its sender wrote."""


class Malformed(Exception):  # noqa: N818 - the fault is the name
    """It is no CloudEvent as version 1.0 has it; `faults` are pairs of where and what."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        self.faults = tuple((where[:MAX_PLACE], what) for where, what in faults)
        where, what = self.faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{where}: {what}{more}")


class UnsupportedFormat(Exception):  # noqa: N818 - the fault is the name
    """It is in an event format that is not spoken here."""


class NoSuchBroker(Exception):  # noqa: N818 - the fault is the name
    """Nobody has declared a broker with this address."""


class NotAccepted(Exception):  # noqa: N818 - the outcome is the name
    """The sender still has the event and has to send it again, after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after

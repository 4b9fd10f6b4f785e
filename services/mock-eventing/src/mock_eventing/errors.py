"""The errors of the broker's ingress: of an event, of its address, and of its deliveries."""

from dataclasses import dataclass
from typing import Final

MAX_POINTER: Final = 80
"""Characters of a pointer in a message, because a sender may choose any name for an attribute."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an event.

    Attributes:
        pointer: the header, the attribute or the JSON pointer that is wrong.
        detail: the fault, as a sentence without its subject.
    """

    pointer: str
    detail: str


class Malformed(Exception):  # noqa: N818 - the fault is the name
    """The request holds no valid CloudEvent of version 1.0."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = tuple(Fault(fault.pointer[:MAX_POINTER], fault.detail) for fault in faults)
        first = self.faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{first.pointer}: {first.detail}{more}")


class UnsupportedFormat(Exception):  # noqa: N818 - the fault is the name
    """The request is in an event format that this broker does not read."""


class BrokerNotFound(Exception):  # noqa: N818 - the fault is the name
    """No Trigger or Broker document names the address."""


class NotAccepted(Exception):  # noqa: N818 - the outcome is the name
    """The event stays with its sender, who has to send it again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after

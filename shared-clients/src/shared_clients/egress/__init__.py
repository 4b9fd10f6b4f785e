"""Outgoing HTTP: every client reaches only the destinations of its policy, over one checked connector.

`destinations` decides in pure functions, `connecting` opens connections for aiohttp, and `transport` and
`sdk_transport` lead httpx and httpx2 over the same connector. `sdk_transport` is not imported here, because only SDKs
need httpx2.
"""

from shared_clients.egress.connecting import (
    AnswerTooLargeError,
    CheckedConnector,
    DestinationRefusedError,
    open_session,
    read_answer,
)
from shared_clients.egress.destinations import Destination, EgressPolicy
from shared_clients.egress.transport import CheckedTransport

__all__ = [
    "AnswerTooLargeError",
    "CheckedConnector",
    "CheckedTransport",
    "Destination",
    "DestinationRefusedError",
    "EgressPolicy",
    "open_session",
    "read_answer",
]

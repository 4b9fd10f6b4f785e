"""Identifiers.

Every identifier is a UUIDv7 (RFC 9562). Such ids sort by creation time, so index pages stay warm, and contain no
personal data. A run's `execution_id` is its request's `request_id`.
"""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a new UUIDv7; within one process each id is greater than the one before."""
    return uuid7()

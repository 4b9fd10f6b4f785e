"""Identifiers.

Every identifier is a UUIDv7 (RFC 9562): it sorts by creation time, so index pages stay warm, and it carries no
personal data. A run's `execution_id` is its request's `request_id`.
"""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a fresh UUIDv7; within one process each is greater than the last."""
    return uuid7()

"""The catalogue of what goes into the audit log: every decision about identity, permission and other people's work.

A service writes an entry in the transaction of the effect (`durable_work.audit.record`). That a request was accepted is
not here: its row in request-manager is the record of it. Names are stable, because they stay in logs for years.
"""

from enum import StrEnum


class Action(StrEnum):
    """What was done, or was refused."""

    REQUEST_CANCEL_ASKED = "request.cancel_asked"
    """The owner asked for a running request to be stopped. Subject: the request."""
    SESSION_CREATED = "session.created"
    """A conversation was opened before its first request. Subject: the session."""
    SESSION_DELETED = "session.deleted"
    """The owner deleted a conversation. Subject: the session."""
    LINK_MADE = "sign_in.link_made"
    """A single-use link was made that signs one browser in as its maker. Subject: the link's pseudonym."""
    SIGNED_IN = "sign_in.done"
    """A browser was signed in with a link. Actor: the new credential; subject: the link's pseudonym."""
    SIGNED_OUT = "sign_in.ended"
    """A browser's credential was revoked by its owner. Subject: the credential."""
    IDENTITY_REFUSED = "identity.refused"
    """A call came in without an identity that we know (401). Subject: method and route."""
    PERMISSION_REFUSED = "permission.refused"
    """A known caller asked for what it may not have, or a foreign page used its cookie (403). Subject: as above."""
    REFUSALS_COUNTED = "refusals.counted"
    """More refusals than are written one by one. Subject: the action they would have had; details: how many."""
    DEAD_LETTER_READ = "dead_letter.read"
    """The bytes of an event that could not be handled were shown. Subject: the dead letter."""
    DEAD_LETTER_REPLAYED = "dead_letter.replayed"
    """A dead letter was given another try. Subject: the dead letter."""
    DEAD_LETTER_DISCARDED = "dead_letter.discarded"
    """A dead letter was given up, with a reason. Subject: the dead letter."""


class Outcome(StrEnum):
    """How it went."""

    DONE = "done"
    REFUSED = "refused"

"""The metrics of durable work."""

from shared_clients.metrics import counter, gauge

OUTBOX_PENDING = gauge("flotilla_outbox_pending", "Events written and not yet safe on the bus.", "service")
OUTBOX_PUBLISHED = counter(
    "flotilla_outbox_published_total", "Tries to publish an event, by result: safe, later or dead.", "type", "outcome"
)
INBOX_EVENTS = counter(
    "flotilla_inbox_events_total",
    "Events consumed, by what became of them: done, duplicate, parked, dead, or unknown (a type nobody here reads).",
    "consumer",
    "outcome",
)
AUDIT_UNSEALED = gauge("flotilla_audit_unsealed", "Audit entries that wait for the sealer.", "service")
AUDIT_UNSEALED_SECONDS = gauge(
    "flotilla_audit_unsealed_seconds", "Age of the oldest audit entry that waits for the sealer.", "service"
)
AUDIT_ANCHORED = gauge(
    "flotilla_audit_anchored_timestamp_seconds", "When the audit log's head was last found anchored.", "service"
)
DEAD_LETTERS = gauge(
    "flotilla_dead_letters", "Events that could not be handled or published, and wait for somebody.", "service"
)
LEASE_RENEWALS = counter("flotilla_lease_renewals_total", "Renewals of a worker's lease: renewed or failed.", "outcome")

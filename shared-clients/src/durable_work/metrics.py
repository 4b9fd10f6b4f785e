"""The metrics of durable work."""

from shared_clients.metrics import counter, gauge

OUTBOX_PENDING = gauge("flotilla_outbox_pending", "Events in the outbox that are not published yet.", "service")
OUTBOX_PUBLISHED = counter(
    "flotilla_outbox_published_total", "Tries to publish an event, by result: safe, later or dead.", "type", "outcome"
)
INBOX_EVENTS = counter(
    "flotilla_inbox_events_total",
    "Deliveries of events by outcome: done, duplicate, parked, dead, or unknown (a type that this consumer ignores).",
    "consumer",
    "outcome",
)
AUDIT_UNSEALED = gauge("flotilla_audit_unsealed", "Audit entries that wait for the sealer.", "service")
AUDIT_UNSEALED_SECONDS = gauge(
    "flotilla_audit_unsealed_seconds", "Age of the oldest audit entry that waits for the sealer.", "service"
)
AUDIT_ANCHORED = gauge(
    "flotilla_audit_anchored_timestamp_seconds",
    "Time of the last check that found the audit log's head anchored.",
    "service",
)
DEAD_LETTERS = gauge(
    "flotilla_dead_letters",
    "Dead letters: events that could not be handled or published, and wait for an operator.",
    "service",
)
JOBS = counter(
    "flotilla_jobs_total",
    "Tries of jobs by outcome: done, delayed (tried again later), failed, handed back or lost (claimed by another).",
    "table",
    "outcome",
)
LEASE_RENEWALS = counter("flotilla_lease_renewals_total", "Renewals of a worker's lease: renewed or failed.", "outcome")

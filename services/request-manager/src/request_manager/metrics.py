"""The metrics of request-manager."""

from shared_clients.metrics import counter, gauge

REQUESTS_ACCEPTED = counter("flotilla_requests_accepted_total", "Requests made durable, by channel.", "channel")
REQUESTS = gauge(
    "flotilla_requests",
    "Requests by state: accepted = terminal + pending; overdue should end; unaccounted has to be 0.",
    "state",
)
REQUESTS_ASKED_AGAIN = counter(
    "flotilla_requests_asked_again_total", "Requests published again because their next event was overdue."
)

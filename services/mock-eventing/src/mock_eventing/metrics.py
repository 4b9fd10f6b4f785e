"""The metrics of mock-eventing."""

from shared_clients.metrics import counter

EVENTING_DELIVERIES = counter(
    "flotilla_eventing_deliveries_total",
    "Events at mock-eventing's triggers by outcome: delivered, retried, dead, or returned to the sender.",
    "outcome",
)

"""The metrics of a service process."""

from shared_clients.metrics import counter

CONNECTIONS_CUT = counter(
    "flotilla_connections_cut_total",
    "Clients that were cut because they did not go on, by what was awaited.",
    "awaited",
)

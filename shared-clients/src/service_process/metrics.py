"""The metrics of a service process."""

from shared_clients.metrics import counter

CONNECTIONS_CUT = counter(
    "flotilla_connections_cut_total",
    "Connections that were cut because the client stopped, by what was awaited.",
    "awaited",
)

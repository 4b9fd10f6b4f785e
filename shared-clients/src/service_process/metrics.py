"""The metrics of a service process."""

from shared_clients.metrics import counter

CONNECTIONS_CUT = counter(
    "flotilla_connections_cut_total",
    "Connections that were cut because the client stopped sending or reading, by the part that was due.",
    "awaited",
)

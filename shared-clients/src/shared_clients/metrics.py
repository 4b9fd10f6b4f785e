"""The one catalogue of metrics: what an operator can count, under which name, with which labels.

Each line below makes the Prometheus object and its entry in `CATALOG`, from which documents and dashboards are made,
so neither exists without the other. A label has few values, known in advance: never an id, tenant, path or person.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

_RUN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus shows it.

    Attributes:
        name: with its unit at the end.
        kind: counter, gauge or histogram.
        meaning: one sentence for people who look at a dashboard.
        labels: names of its labels.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
CATALOG: dict[str, Metric] = {}


def scrape() -> bytes:
    """Return all metrics of this process, as `MEDIA_TYPE`."""
    return generate_latest()


def _enter(metric: Metric) -> Metric:
    CATALOG[metric.name] = metric
    return metric


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    metric = _enter(Metric(name, Kind.COUNTER, meaning, labels))
    return Counter(metric.name, metric.meaning, metric.labels)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    metric = _enter(Metric(name, Kind.GAUGE, meaning, labels))
    return Gauge(metric.name, metric.meaning, metric.labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
    metric = _enter(Metric(name, Kind.HISTOGRAM, meaning))
    return Histogram(metric.name, metric.meaning, metric.labels, buckets=buckets)


REQUESTS_ACCEPTED = _counter("flotilla_requests_accepted_total", "Requests made durable, by channel.", "channel")
REQUESTS = _gauge(
    "flotilla_requests",
    "Requests by state: accepted = terminal + pending; overdue should end; unaccounted has to be 0.",
    "state",
)
REQUESTS_ASKED_AGAIN = _counter(
    "flotilla_requests_asked_again_total", "Requests of which nothing was heard for too long, asked about again."
)
RUNS_ENDED = _counter("flotilla_runs_ended_total", "Runs that ended, by terminal status.", "outcome")
RUN_SECONDS = _histogram("flotilla_run_seconds", "Time from a run's first claim to its end.", _RUN_BUCKETS)
FIRST_TOKEN_SECONDS = _histogram(
    "flotilla_first_token_seconds", "Time from a run's first claim to the first text from its model.", _TOKEN_BUCKETS
)
MODEL_CALLS = _counter(
    "flotilla_model_calls_total",
    "Calls of a model, by provider and by what came: ok or why not.",
    "provider",
    "outcome",
)
MODEL_TOKENS = _counter(
    "flotilla_model_tokens_total", "Tokens that models read and wrote: input or output.", "provider", "direction"
)
OUTBOX_PENDING = _gauge("flotilla_outbox_pending", "Events written and not yet safe on the bus.", "service")
OUTBOX_PUBLISHED = _counter(
    "flotilla_outbox_published_total", "Tries to publish an event, by result: safe, later or dead.", "type", "outcome"
)
INBOX_EVENTS = _counter(
    "flotilla_inbox_events_total",
    "Events consumed, by what became of them: done, duplicate, parked, dead, or unknown (a type nobody here reads).",
    "consumer",
    "outcome",
)
AUDIT_UNSEALED = _gauge("flotilla_audit_unsealed", "Audit entries that wait for the sealer.", "service")
AUDIT_UNSEALED_SECONDS = _gauge(
    "flotilla_audit_unsealed_seconds", "Age of the oldest audit entry that waits for the sealer.", "service"
)
AUDIT_ANCHORED = _gauge(
    "flotilla_audit_anchored_timestamp_seconds", "When the audit log's head was last found anchored.", "service"
)
DEAD_LETTERS = _gauge(
    "flotilla_dead_letters", "Events that could not be handled or published, and wait for somebody.", "service"
)
EVENTING_DELIVERIES = _counter(
    "flotilla_eventing_deliveries_total",
    "Events at mock-eventing's triggers, by what became of them: delivered, retried, dead, or returned to the sender.",
    "outcome",
)
LEASE_RENEWALS = _counter(
    "flotilla_lease_renewals_total", "Renewals of a worker's lease: renewed or failed.", "outcome"
)
LOOP_FAILURES = _counter(
    "flotilla_loop_failures_total", "Background loops that crashed and were started again.", "loop"
)
FRAMES_APPENDED = _counter("flotilla_frames_appended_total", "Frames appended to the streams of runs.")
ADMISSION_REFUSED = _counter(
    "flotilla_admission_refused_total", "Requests that were refused before any work, by the limit they met.", "limit"
)
CONNECTIONS_CUT = _counter(
    "flotilla_connections_cut_total",
    "Clients that were cut because they did not go on, by what was awaited.",
    "awaited",
)
STREAMS_OPEN = _gauge("flotilla_streams_open", "Clients reading a stream at this moment.")

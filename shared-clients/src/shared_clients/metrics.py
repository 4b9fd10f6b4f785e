"""The catalogue of all metrics: each has its name, its labels, and one sentence for a dashboard.

A package defines its metrics in its own `metrics` module. `counter`, `gauge` and `histogram` create the Prometheus
object and its entry in `CATALOG`, so that the documents and dashboards made from it are complete. A label has few
values, known in advance: never an id, tenant, path or person.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest


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


def counter(name: str, meaning: str, *labels: str) -> Counter:
    """Return a new counter, entered in the catalogue."""
    metric = _enter(Metric(name, Kind.COUNTER, meaning, labels))
    return Counter(metric.name, metric.meaning, metric.labels)


def gauge(name: str, meaning: str, *labels: str) -> Gauge:
    """Return a new gauge, entered in the catalogue."""
    metric = _enter(Metric(name, Kind.GAUGE, meaning, labels))
    return Gauge(metric.name, metric.meaning, metric.labels)


def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
    """Return a new histogram with these upper bounds, entered in the catalogue."""
    metric = _enter(Metric(name, Kind.HISTOGRAM, meaning))
    return Histogram(metric.name, metric.meaning, metric.labels, buckets=buckets)


LOOP_FAILURES = counter("flotilla_loop_failures_total", "Background loops that crashed and were started again.", "loop")

ADMISSION_REFUSED = counter(
    "flotilla_admission_refused_total", "Requests that were refused before any work, by the limit they met.", "limit"
)

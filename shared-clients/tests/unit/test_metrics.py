"""The catalogue of metrics: complete, named alike, and without labels that grow."""

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import agent_service.metrics
import durable_work.metrics
import mock_eventing.metrics
import request_manager.metrics
import run_frames.metrics
import service_process.metrics
from shared_clients import metrics

OWNERS = (
    metrics,
    agent_service.metrics,
    durable_work.metrics,
    mock_eventing.metrics,
    request_manager.metrics,
    run_frames.metrics,
    service_process.metrics,
)

FEW_VALUES = {
    "awaited",
    "channel",
    "consumer",
    "direction",
    "limit",
    "loop",
    "outcome",
    "provider",
    "service",
    "state",
    "table",
    "type",
}
"""Labels whose values are known in advance."""


def test_every_metric_of_a_package_is_in_the_catalogue_and_the_registry() -> None:
    made = {id(value) for owner in OWNERS for value in vars(owner).values() if isinstance(value, MetricWrapperBase)}
    assert len(made) == len(metrics.CATALOG) > 0
    exposed = metrics.scrape().decode()
    for metric in metrics.CATALOG.values():
        family = metric.name.removesuffix("_total") if metric.kind is metrics.Kind.COUNTER else metric.name
        assert f"# TYPE {metric.name} {metric.kind}" in exposed
        assert any(described.name == family for described in REGISTRY.collect())


def test_names_say_the_project_and_the_unit() -> None:
    for metric in metrics.CATALOG.values():
        assert metric.name.startswith("flotilla_")
        assert metric.name.endswith("_total") == (metric.kind is metrics.Kind.COUNTER)
        assert metric.name.endswith("_seconds") or metric.kind is not metrics.Kind.HISTOGRAM
        assert metric.meaning.endswith(".")


def test_no_label_can_have_many_values() -> None:
    for metric in metrics.CATALOG.values():
        assert set(metric.labels) <= FEW_VALUES

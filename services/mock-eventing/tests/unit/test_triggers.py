"""Trigger files: the settings of each trigger, and mistakes with their place in the file."""

from datetime import timedelta

import pytest

from mock_eventing.domain.triggers import Address, DeliverySpec, Trigger, parse_triggers
from shared_models.agents import ConfigError

BROKER = """\
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default, annotations: {eventing.knative.dev/broker.class: any}}
spec: {delivery: {retry: 2, backoffPolicy: linear}}
"""


def trigger(spec: str, name: str = "one") -> str:
    subscriber = "" if spec.startswith("subscriber:") else '\n  subscriber: {uri: "http://runs:8080/events"}'
    return f"""\
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: {name}
spec:{subscriber}
  {spec}
"""


def only(text: str) -> Trigger:
    ((found,),) = parse_triggers("t.yaml", text).values()
    return found


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        parse_triggers("t.yaml", text)
    return str(raised.value)


def test_a_trigger_alone_has_knative_s_defaults() -> None:
    found = only(trigger("broker: default"))
    assert found.name == "default/one"
    assert found.broker == Address("default", "default")
    assert found.uri == "http://runs:8080/events"
    assert found.delivery == DeliverySpec()
    assert found.matches({"type": "anything"})


def test_a_trigger_s_own_delivery_counts_whole_and_the_broker_s_otherwise() -> None:
    assert only(f"{BROKER}---\n{trigger('broker: default')}").delivery.retry == 2
    own = only(f"{trigger('delivery: {backoffDelay: PT1.5S}')}---\n{BROKER}").delivery
    assert own == DeliverySpec(backoff_delay=timedelta(seconds=1.5))
    assert own.retry == 10


def test_every_field_of_a_delivery_is_read() -> None:
    fields = (
        "{retry: 1, backoffPolicy: linear, backoffDelay: P1DT1H, backoffMax: PT2M, retryAfterMax: PT0S, timeout: PT3S,"
        " deadLetterSink: {uri: 'https://letters/'}, format: json}"
    )
    read = only(trigger(f"delivery: {fields}")).delivery
    assert read.model_dump(exclude_defaults=True) == {
        "retry": 1,
        "backoff_policy": "linear",
        "backoff_delay": timedelta(days=1, hours=1),
        "backoff_max": timedelta(minutes=2),
        "retry_after_max": timedelta(0),
        "timeout": timedelta(seconds=3),
        "dead_letter_sink": {"uri": "https://letters/"},
        "format": "json",
    }


def test_brokers_keep_their_triggers_apart() -> None:
    text = "---\n".join(
        [BROKER, trigger("broker: default", "a"), trigger("broker: other", "b"), trigger("filters: []", "c")]
    )
    read = parse_triggers("t.yaml", text)
    assert {str(address): [one.name for one in of_it] for address, of_it in read.items()} == {
        "default/default": ["default/a", "default/c"],
        "default/other": ["default/b"],
    }


def test_filters_count_instead_of_a_filter() -> None:
    both = only(trigger("filter: {attributes: {type: a}}\n  filters: [{prefix: {type: b}}]"))
    assert both.matches({"type": "bc"})
    assert not both.matches({"type": "a"})
    assert only(trigger("filter: {attributes: {type: a}}")).matches({"type": "a"})


def test_what_a_cluster_writes_beside_the_spec_is_ignored() -> None:
    assert only(trigger("broker: default") + "status: {conditions: []}\n").name == "default/one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "t.yaml:1:1: the file is empty"),
        ("a: [", "t.yaml:1:5: not YAML: expected the node content"),
        ("a: !!python/none 1", "t.yaml:1:4: not YAML: could not determine a constructor"),
        (f"{BROKER}---\n\nkind: Service\n", "t.yaml:7:7: kind: expected Trigger or Broker"),
        (f"{BROKER}---\nmetadata: {{}}\n", "t.yaml:6:1: kind: expected Trigger or Broker"),
        (trigger("delivery: {retry: -1}"), "t.yaml:7:21: spec.delivery.retry: Input should be greater than"),
        (trigger("delivery: {retries: 1}"), "t.yaml:7:23: spec.delivery.retries: Extra inputs are not permitted"),
        (trigger("delivery: {backoffDelay: 5}"), "spec.delivery.backoffDelay: Value error, expected an ISO 8601"),
        (trigger("delivery: {backoffDelay: P1M}"), "expected an ISO 8601 duration of days or less"),
        (trigger("delivery: {backoffDelay: PT}"), "expected an ISO 8601 duration"),
        (trigger("delivery: {timeout: PT0S}"), "spec.delivery.timeout: Value error, expected more than zero"),
        (trigger("filters: [{cesql: x}]"), "t.yaml:7:21: spec.filters.0.cesql: Value error, CESQL is not supported"),
        (trigger("filters: [{any: [{}]}]"), "spec.filters.0.any.0: Value error, expected exactly one of"),
        (trigger("subscriber: {ref: {kind: Service}}"), "spec.subscriber.uri: Field required"),
        (trigger("subscriber: {uri: /events}"), "expected http://host"),
        (trigger("subscriber: {uri: 'ftp://a/'}"), "expected http://host"),
        (trigger("subscriber: {uri: 'http://a:b@c/'}"), "without user name and fragment"),
        (trigger("subscriber: {uri: 'http://a:99999/'}"), "expected http://host"),
        (trigger("subscriber: {uri: 'http://straße/'}"), "expected http://host"),
        (trigger("broker: Default"), "spec.broker: String should match pattern"),
        (trigger("broker: &b default") + "x: *b\n", "YAML aliases"),
        (
            f"{trigger('broker: a')}---\n{trigger('broker: b')}",
            "t.yaml:12:9: metadata.name: there is a trigger default/one",
        ),
    ],
)
def test_mistake_is_named_with_file_line_and_column(text: str, expected: str) -> None:
    assert expected in mistakes(text)


def test_a_broker_that_is_there_twice_is_a_mistake() -> None:
    assert "t.yaml:8:18: metadata.name: there is a broker default/default already" in mistakes(f"{BROKER}---\n{BROKER}")


def test_every_mistake_of_a_document_is_told() -> None:
    assert len(mistakes(trigger("delivery: {retry: x, timeout: y}")).splitlines()) == 2

"""Knative's Trigger and Broker documents, read from one YAML file.

The fields are Knative's own, so a file for a cluster can be used here. Two fields are refused, with their line and
column in the file: a `ref`, which only a cluster can look up, and a CESQL filter.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from mock_eventing.domain.filters import Attributes, Filter, matches_all, matches_exactly
from shared_models.agents import ConfigError, Mistake, check_yaml, config_error, parse_document

API_VERSION: Final = "eventing.knative.dev/v1"

_DURATION: Final = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


def _duration(text: object) -> object:
    if not isinstance(text, timedelta) and not (isinstance(text, str) and _DURATION.fullmatch(text)):
        msg = "expected an ISO 8601 duration of days or less, such as PT0.2S"
        raise ValueError(msg)
    return text


def _positive(duration: timedelta) -> timedelta:
    if not duration:
        msg = "expected more than zero"
        raise ValueError(msg)
    return duration


def _uri(text: str) -> str:
    try:
        parts = urlsplit(text)
        fit = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        fit = False
    if not fit or "#" in text or not text.isascii() or not text.isprintable() or " " in text:
        msg = "expected http://host[:port][/path] or https://…, without user name and fragment"
        raise ValueError(msg)
    return text


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class _Document(BaseModel):
    """A resource document; fields that a cluster adds and this module does not read are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Destination(_Strict):
    """The destination of events, by its address: without a cluster no `ref` can be looked up.

    Attributes:
        uri: the address.
        audience: the audience of a cluster's OIDC tokens; it is ignored, because requests carry the shared secret.
    """

    uri: Annotated[str, AfterValidator(_uri)]
    audience: str = ""


class DeliverySpec(_Strict):
    """The delivery settings of a trigger: Knative's DeliverySpec.

    Attributes:
        retry: the number of tries after the first.
        backoff_policy, backoff_delay, backoff_max: the pauses between tries, as `retrying` computes them.
        retry_after_max: the longest pause that a subscriber's Retry-After may cause; with PT0S the header is ignored.
        timeout: the timeout of one try.
        dead_letter_sink: the destination of events that cannot be delivered.
        format: the content mode of requests: `binary`, or `json` for structured mode.
    """

    retry: Annotated[int, Field(ge=0, le=1000)] = 10
    backoff_policy: Literal["linear", "exponential"] = "exponential"
    backoff_delay: Annotated[Duration, AfterValidator(_positive)] = timedelta(seconds=0.2)
    backoff_max: Annotated[Duration, AfterValidator(_positive)] = timedelta(seconds=30)
    retry_after_max: Duration = timedelta(seconds=30)
    timeout: Annotated[Duration, AfterValidator(_positive)] = timedelta(seconds=10)
    dead_letter_sink: Destination | None = None
    format: Literal["binary", "json"] = "binary"


class Metadata(_Document):
    name: Name
    namespace: Name = "default"


class AttributesFilter(_Strict):
    attributes: dict[str, str] = Field(default_factory=dict)


class TriggerSpec(_Strict):
    """The spec of a trigger: its filters and its subscriber.

    Attributes:
        broker: the name of a broker in the trigger's namespace.
        filter: attributes with their exact values; it is ignored where `filters` is not empty.
        filters: expressions, all of which have to be true.
        subscriber: the destination of matching events.
        delivery: the delivery settings; the broker's where they are left out.
    """

    broker: Name = "default"
    filter: AttributesFilter = AttributesFilter()
    filters: tuple[Filter, ...] = ()
    subscriber: Destination
    delivery: DeliverySpec | None = None


class TriggerDocument(_Document):
    api_version: Literal["eventing.knative.dev/v1"]
    kind: Literal["Trigger"]
    metadata: Metadata
    spec: TriggerSpec


class BrokerSpec(_Document):
    delivery: DeliverySpec | None = None


class BrokerDocument(_Document):
    api_version: Literal["eventing.knative.dev/v1"]
    kind: Literal["Broker"]
    metadata: Metadata
    spec: BrokerSpec = BrokerSpec()


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a broker: `/{namespace}/{name}`."""

    namespace: str = "default"
    name: str = "default"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger, with the settings that it takes over from its broker.

    Attributes:
        name: `<namespace>/<name>`.
        broker: the address of the broker whose events it reads.
        uri: the address of its subscriber.
        spec: the document's spec, for its filters.
        delivery: the trigger's own delivery settings, the broker's, or the default.
    """

    name: str
    broker: Address
    uri: str
    spec: TriggerSpec
    delivery: DeliverySpec = field(default_factory=DeliverySpec)

    def matches(self, attributes: Attributes) -> bool:
        if self.spec.filters:
            return matches_all(self.spec.filters, attributes)
        return matches_exactly(self.spec.filter.attributes, attributes)


type Triggers = Mapping[Address, tuple[Trigger, ...]]
"""The triggers of each broker."""


def destinations_of(triggers: Triggers) -> frozenset[str]:
    """Return the addresses to which events may be sent: of subscribers, and of dead-letter sinks."""
    all_triggers = [trigger for group in triggers.values() for trigger in group]
    sinks = [trigger.delivery.dead_letter_sink for trigger in all_triggers]
    return frozenset({*(trigger.uri for trigger in all_triggers), *(sink.uri for sink in sinks if sink)})


def parse_triggers(file: str, text: str) -> Triggers:
    """Read a file of Trigger and Broker documents; a broker exists where a document of either kind names it.

    Args:
        file: the file's name, for messages.
        text: YAML without aliases, at most one mebibyte in each document.

    Raises:
        ConfigError: a document is not valid; the error has each mistake with its line and column.
    """
    found: dict[tuple[str, Address], TriggerDocument | BrokerDocument] = {}
    for part in _documents(file, text):
        document = _parse(file, part)
        key = document.kind.lower(), Address(document.metadata.namespace, document.metadata.name)
        if key in found:
            raise config_error(file, part, {("metadata", "name"): f"there is a {key[0]} {key[1]} already"})
        found[key] = document
    brokers = {address: one.spec.delivery for (_, address), one in found.items() if isinstance(one, BrokerDocument)}
    triggers = [_trigger(one, brokers) for one in found.values() if isinstance(one, TriggerDocument)]
    addresses = [*brokers, *(one.broker for one in triggers)]
    return {address: tuple(one for one in triggers if one.broker == address) for address in addresses}


def _trigger(document: TriggerDocument, brokers: Mapping[Address, DeliverySpec | None]) -> Trigger:
    namespace, spec = document.metadata.namespace, document.spec
    broker = Address(namespace, spec.broker)
    delivery = spec.delivery or brokers.get(broker) or DeliverySpec()
    return Trigger(f"{namespace}/{document.metadata.name}", broker, spec.subscriber.uri, spec, delivery)


def _parse(file: str, part: str) -> TriggerDocument | BrokerDocument:
    try:
        content = yaml.safe_load(part)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(file, error) from error
    match content:
        case {"kind": "Trigger"}:
            return parse_document(file, part, TriggerDocument)
        case {"kind": "Broker"}:
            return parse_document(file, part, BrokerDocument)
        case _:
            raise config_error(file, part, {("kind",): f"expected Trigger or Broker of {API_VERSION}"})


def _documents(file: str, text: str) -> Iterator[str]:
    """Yield the documents of a file, each after empty lines that keep the line numbers of the file."""
    check_yaml(file, text)
    try:
        parsed = yaml.parse(text, Loader=yaml.SafeLoader)
        starts = [one.start_mark for one in parsed if isinstance(one, yaml.DocumentStartEvent) and one.start_mark]
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(file, error) from error
    if not starts:
        raise config_error(file, text, {})
    for mark, end in zip(starts, [*(mark.index for mark in starts[1:]), len(text)], strict=True):
        yield "\n" * mark.line + " " * mark.column + text[mark.index : end]


def _not_yaml(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return ConfigError(file, (Mistake(line, column, "", f"not YAML: {error.problem}"),))

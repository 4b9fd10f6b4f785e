from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_clients.egress.destinations import (
    METADATA_ADDRESSES,
    Allowed,
    Destination,
    EgressPolicy,
    Reach,
    Refused,
    decide_addresses,
    decide_host,
    reach_of,
)

PUBLIC = EgressPolicy(public=True)
NAT64 = IPv6Network("64:ff9b::/96")
OWN = EgressPolicy.of(["http://request-manager:8080", "https://[fd00::7]/v1", "http://127.0.0.1:11434/v1"])


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "11.0.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "223.255.255.1",
        "2606:4700::1111",
        "2a00:1450:4001:81b::200e",
        "64:ff9b::808:808",
    ],
)
def test_a_public_address_may_be_reached(address: str) -> None:
    assert decide_addresses(Destination("example.com", 443), [address], PUBLIC) == Allowed((ip_address(address),))


@pytest.mark.parametrize(
    "host", ["example.com", "api.openai.com", "xn--bcher-kva.example", "8.8.8.8", "a_b.example.com"]
)
def test_a_public_host_may_be_resolved(host: str) -> None:
    assert isinstance(decide_host(Destination(host, 443), PUBLIC), Allowed)
    assert isinstance(decide_host(Destination(host, 443), OWN), Refused), "own services call nothing else"


@pytest.mark.parametrize(
    ("destination", "resolved"),
    [
        (Destination("request-manager", 8080), "10.3.0.7"),
        (Destination("request-manager", 8080), "fd00::9"),
        (Destination("fd00::7", 443), "fd00::7"),
        (Destination("127.0.0.1", 11434), "127.0.0.1"),
    ],
)
def test_a_configured_server_may_have_a_private_address(destination: Destination, resolved: str) -> None:
    assert isinstance(decide_host(destination, OWN), Allowed)
    assert isinstance(decide_addresses(destination, [resolved], OWN), Allowed)


@pytest.mark.parametrize("resolved", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:10.0.0.1"])
def test_a_configured_name_is_refused_where_it_resolves_to_a_special_address(resolved: str) -> None:
    decision = decide_addresses(Destination("request-manager", 8080), ["10.3.0.7", resolved], OWN)
    assert isinstance(decision, Refused)
    assert "request-manager:8080" in decision.reason


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com", "http://", "http:///x", "unix:///run/x"])
def test_a_url_without_a_host_is_no_destination_and_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="not of the form http") as refused:
        Destination.of(url)
    assert not url or url not in str(refused.value).replace("http://host", "").replace("https://host", "")


def test_a_destination_is_compared_without_case_dot_and_default_port() -> None:
    assert Destination.of("HTTPS://API.Example.com./v1") == Destination.of("https://api.example.com:443")


@given(st.integers(0, 2**32 - 1))
def test_no_transitional_form_makes_a_refused_address_public(number: int) -> None:
    inner = IPv4Address(number)
    for form in (
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address(number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x20010000 << 96) | (number ^ 0xFFFF_FFFF)),
        IPv6Address((0x2607F8B0 << 96) | (0x5EFE << 32) | number),
    ):
        assert reach_of(form) is not Reach.PUBLIC
    nat64 = IPv6Address((0x64FF9B << 96) | number)
    assert (reach_of(nat64) is Reach.PUBLIC) == (reach_of(inner) is Reach.PUBLIC)


@given(st.ip_addresses())
def test_a_public_address_is_global_by_the_registry_too(address: IPv4Address | IPv6Address) -> None:
    if reach_of(address) is Reach.PUBLIC and address not in NAT64:
        assert address.is_global
        assert not address.is_multicast
    if address in METADATA_ADDRESSES:
        assert reach_of(address) is Reach.METADATA

"""The rule of outgoing connections: which host, port and addresses a client may reach, as pure functions.

A host name can resolve to any address, and a model or a server can name any host. Therefore the rule is asked twice:
for the host before it is resolved, and for all of its addresses before one of them is connected to.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Self

from yarl import URL

type IPAddress = IPv4Address | IPv6Address

METADATA_ADDRESSES: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Google, Azure, DigitalOcean, OpenStack
            "169.254.170.2",  # AWS ECS
            "169.254.170.23",  # AWS EKS
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS
            "fd20:ce::254",  # Google
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure; the only one in a public network
        ),
    )
)
"""Addresses at which clouds give out credentials of the machine; no setting makes them reachable."""

_PRIVATE_V4: Final = tuple(
    map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
)
_SPECIAL_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_PRIVATE_V6: Final = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = (
    IPv6Network("2001::/23"),  # protocols of the IETF, and Teredo, which hides an IPv4 address
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4, which hides an IPv4 address
    IPv6Network("3fff::/20"),
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})

_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)
_ENDS_IN_NUMBER: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""Hosts that the C library reads as an IPv4 address (WHATWG URL 3.5), such as 2130706433, 0x7f.1 and 127.1."""
_LOCAL_NAMES: Final = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "svc",
    "cluster.local",
    "test",
    "invalid",
    "onion",
)


class Reach(StrEnum):
    """The part of the network to which an address belongs."""

    PUBLIC = "public"
    PRIVATE = "private"
    SPECIAL = "special"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and a port, the host in lower case and without brackets or a dot at its end."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str | URL) -> Self:
        """Return the destination of a URL.

        Raises:
            ValueError: the URL is not an http or https URL with a host; the message does not repeat it.
        """
        parsed = URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host or not parsed.port:
            raise ValueError("the URL is not of the form http://host[:port][/path] or https://host[:port][/path]")
        return cls(parsed.host.lower().removesuffix("."), parsed.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """The destinations that a client may reach.

    Attributes:
        connections: destinations that settings name; their addresses may be private.
        public: whether every other host is allowed too, as long as all of its addresses are public.
    """

    connections: frozenset[Destination] = frozenset()
    public: bool = False

    @classmethod
    def of(cls, urls: Iterable[str]) -> Self:
        """Return the policy of a client that calls only the servers that settings name.

        Raises:
            ValueError: a URL has another form.
        """
        return cls(frozenset(map(Destination.of, urls)))


@dataclass(frozen=True, slots=True)
class Allowed:
    """The client may connect to these addresses; none, where the host is a name that is still to be resolved."""

    addresses: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The client may not connect, for this reason."""

    reason: str


def decide_host(destination: Destination, policy: EgressPolicy) -> Allowed | Refused:
    """Decide about a host before it is resolved; a host that is an address needs no further decision."""
    literal = _literal(destination.host)
    if literal is not None:
        return _decide_literal(destination, literal, policy)
    if not _NAME.fullmatch(destination.host) or _ENDS_IN_NUMBER.fullmatch(destination.host):
        return Refused("the host is neither a DNS name nor an IP address in its usual form")
    if destination in policy.connections:
        return Allowed()
    if not policy.public:
        return Refused(_refusal(destination, policy, "it is not one of the servers that settings name"))
    if "." not in destination.host or any(f".{destination.host}".endswith(f".{name}") for name in _LOCAL_NAMES):
        return Refused(_refusal(destination, policy, "its name belongs to a private network"))
    return Allowed()


def _decide_literal(destination: Destination, address: IPAddress, policy: EgressPolicy) -> Allowed | Refused:
    reach = reach_of(address)
    configured = destination in policy.connections
    if reach is Reach.METADATA or not (configured or (policy.public and reach is Reach.PUBLIC)):
        return Refused(_refusal(destination, policy, f"its address is {reach}"))
    return Allowed((address,))


def decide_addresses(destination: Destination, resolved: Sequence[str], policy: EgressPolicy) -> Allowed | Refused:
    """Decide about a name by all of its addresses: one that may not be reached refuses the name.

    Args:
        destination: one that `decide_host` allows.
        resolved: the addresses of the name, from one resolution.
        policy: of the client.
    """
    addresses = tuple(_literal(text) for text in resolved)
    allowed = {Reach.PUBLIC, Reach.PRIVATE} if destination in policy.connections else {Reach.PUBLIC}
    for address in addresses:
        if address is None:
            return Refused("its name resolves to something that is not an IP address")
        if (reach := reach_of(address)) not in allowed:
            return Refused(_refusal(destination, policy, f"its name resolves to a {reach} address"))
    if not addresses:
        return Refused("its name has no address")
    return Allowed(tuple(address for address in addresses if address is not None))


def reach_of(address: IPAddress) -> Reach:
    """Return the part of the network of an address; an IPv4 address inside an IPv6 address counts.

    The networks are those of the IANA registries of special-purpose addresses (RFC 6890).
    """
    if address in METADATA_ADDRESSES:
        return Reach.METADATA
    return _reach_of_v4(address) if isinstance(address, IPv4Address) else _reach_of_v6(address)


def _reach_of_v6(address: IPv6Address) -> Reach:
    if address in _NAT64:  # the network's own translation of a public server
        inner = reach_of(IPv4Address(int(address) & 0xFFFF_FFFF))
        return inner if inner in {Reach.PUBLIC, Reach.METADATA} else Reach.SPECIAL
    if (hidden := _hidden_v4(address)) is not None:
        return Reach.METADATA if hidden in METADATA_ADDRESSES else Reach.SPECIAL
    if any(address in network for network in _PRIVATE_V6):
        return Reach.PRIVATE
    if address not in _GLOBAL_V6 or any(address in network for network in _SPECIAL_V6):
        return Reach.SPECIAL
    return Reach.PUBLIC


def _reach_of_v4(address: IPv4Address) -> Reach:
    if any(address in network for network in _PRIVATE_V4):
        return Reach.PRIVATE
    return Reach.SPECIAL if any(address in network for network in _SPECIAL_V4) else Reach.PUBLIC


def _hidden_v4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which packets for a transitional IPv6 address may be sent."""
    number = int(address)
    if address.ipv4_mapped or address.sixtofour or address.teredo:
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    if number >> 32 == 0 and number > 1:  # IPv4-compatible (RFC 4291)
        return IPv4Address(number)
    if number >> 80 == int(IPv6Address("64:ff9b:1::")) >> 80 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        return IPv4Address(number & 0xFFFF_FFFF)
    return None


def _literal(host: str) -> IPAddress | None:
    """Return the address that a host is; a zone (`fe80::1%eth0`) makes it none."""
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def _refusal(destination: Destination, policy: EgressPolicy, reason: str) -> str:
    servers = ", ".join(sorted(map(str, policy.connections)))[:200] or "none"
    return f"{str(destination)[:200]} may not be reached: {reason}; servers that settings name: {servers}"

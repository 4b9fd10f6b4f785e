"""The settings of the gateway, the only module of it that reads the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from service_process.settings import ProcessSettings


class Settings(ProcessSettings):
    """The settings of one gateway process.

    Attributes:
        allowed_hosts: the values that a request's Host may have, with a port where there is one, separated by commas.
            The port of the first is in the name of the session cookie.
        auth_dev_key: the only API key of a laptop, 16 characters or more; production refuses to start with it.
        auth_private_key: the file with the key that signs identities (PEM, Ed25519); required for a separate process.
        service_urls: base URLs of the replicas of each service, as a JSON object of lists; required for a separate
            process.
        limits: the admission limits that differ from the defaults of `admission.limits`, as a JSON object of numbers.
    """

    allowed_hosts: Annotated[str, Field(min_length=1)]
    auth_dev_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    auth_private_key: Path | None = None
    service_urls: Mapping[str, tuple[str, ...]] = {}
    limits: Mapping[str, int] = {}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(host.strip() for host in self.allowed_hosts.split(","))

    @property
    def public_port(self) -> int | None:
        """The port in the first of the allowed hosts; None where it has none."""
        _, _, port = self.allowed_hosts.partition(",")[0].strip().rpartition(":")
        return int(port) if port.isascii() and port.isdigit() else None

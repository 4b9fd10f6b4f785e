"""The settings of the gateway; nothing else here reads the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from service_process.settings import ProcessSettings


class Settings(ProcessSettings):
    """What the gateway is told from outside.

    Attributes:
        allowed_hosts: what a request's Host may be, with its port where it has one, separated by commas.
        auth_dev_key: the one API key of a laptop, 16 characters or more; production refuses to start with it.
        auth_private_key: a file with the key that identities are signed with (PEM, Ed25519); a process needs it.
        service_urls: base URLs of the replicas of each service, as a JSON object of lists; a process needs them.
        limits: what is let in where it differs from the defaults of `admission.limits`, as a JSON object of numbers.
    """

    allowed_hosts: Annotated[str, Field(min_length=1)]
    auth_dev_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    auth_private_key: Path | None = None
    service_urls: Mapping[str, tuple[str, ...]] = {}
    limits: Mapping[str, int] = {}

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(host.strip() for host in self.allowed_hosts.split(","))

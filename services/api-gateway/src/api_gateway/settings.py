"""The settings of the gateway; nothing else here reads the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from shared_clients.settings import ProcessSettings


class Settings(ProcessSettings):
    """What the gateway is told from outside.

    Attributes:
        allowed_hosts: what a request's Host may be, with its port where it has one, separated by commas.
        auth_dev_key: the one API key of a laptop; production refuses to start with it.
        auth_private_key: a file with the key that identities are signed with (PEM, Ed25519); a process needs it.
        request_manager_urls: base URLs of its replicas, separated by commas; a process needs them.
        agent_service_urls: the same.
    """

    allowed_hosts: Annotated[str, Field(min_length=1)]
    auth_dev_key: SecretStr | None = None
    auth_private_key: Path | None = None
    request_manager_urls: str = ""
    agent_service_urls: str = ""

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(host.strip() for host in self.allowed_hosts.split(","))

"""The address of a Kafka cluster, and how a process authenticates itself to it, from one URL.

The parameters of the URL have the names of Kafka's own client settings. Secrets are never in the URL, which may be
logged: it names the files that hold them.
"""

import re
import ssl
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import parse_qsl

from aiokafka.abc import AbstractTokenProvider
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from shared_clients.errors import Transient, WrongAddress

_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/@\[\]]+):[0-9]{1,5}")
_EXPECTED: Final = (
    "the bus URL is not of the form kafka://host:port[,host:port][?security_protocol=…], without user or path"
)


class KafkaSecurity(BaseModel):
    """How a process and the brokers authenticate each other.

    Attributes:
        security_protocol: whether connections are encrypted, and whether the process authenticates itself.
        sasl_mechanism: how the process authenticates itself, with a protocol that begins with `SASL_`.
        sasl_username: for PLAIN and SCRAM.
        sasl_password_file: the file with the password, for PLAIN and SCRAM.
        sasl_token_file: the file with the current token, for OAUTHBEARER; another program keeps it fresh.
        ssl_ca_file: the certificate authorities of the brokers; by default the machine's.
        ssl_cert_file, ssl_key_file: the certificate and key of this process, where brokers ask for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password_file: Path | None = None
    sasl_token_file: Path | None = None
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Refuse a parameter that would have no effect, and a protocol without the parameters that it needs."""
        encrypted, sasl = self.security_protocol.endswith("SSL"), self.security_protocol.startswith("SASL_")
        if sasl != (self.sasl_mechanism is not None):
            raise ValueError("sasl_mechanism goes with SASL_SSL or SASL_PLAINTEXT, and with no other security_protocol")
        by_token = self.sasl_mechanism == "OAUTHBEARER"
        by_password = self.sasl_mechanism is not None and not by_token
        if by_password != (bool(self.sasl_username) and self.sasl_password_file is not None):
            raise ValueError("sasl_username and sasl_password_file go with PLAIN and SCRAM, and with nothing else")
        if by_token != (self.sasl_token_file is not None):
            raise ValueError("sasl_token_file goes with OAUTHBEARER, and with nothing else")
        if not encrypted and (self.ssl_ca_file or self.ssl_cert_file or self.ssl_key_file):
            raise ValueError("the files of ssl_… go with SSL or SASL_SSL")
        if (self.ssl_cert_file is None) != (self.ssl_key_file is None):
            raise ValueError("ssl_cert_file and ssl_key_file go together")
        return self


class KafkaCluster(BaseModel):
    """A cluster as a bus URL names it.

    Attributes:
        servers: `host:port` of brokers that a client asks for all others.
        security: of all connections.
    """

    model_config = ConfigDict(frozen=True)

    servers: tuple[str, ...]
    security: KafkaSecurity = KafkaSecurity()

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the cluster of a `kafka://` URL.

        Raises:
            WrongAddress: it is of another form; the message repeats no value, because it may be a secret.
        """
        address, _, parameters = url.partition("?")
        servers = address.removeprefix("kafka://").removesuffix("/").split(",")
        if not url.startswith("kafka://") or not all(_ADDRESS.fullmatch(server) for server in servers):
            raise WrongAddress(_EXPECTED)
        try:
            pairs = parse_qsl(parameters, keep_blank_values=True, strict_parsing=True) if parameters else []
            security = KafkaSecurity.model_validate(dict(pairs))
        except ValidationError as error:
            faults = "; ".join(f"{_parameter(fault['loc'])}: {fault['msg']}" for fault in error.errors())
            raise WrongAddress(f"{_EXPECTED}: {faults[:500]}") from None
        except ValueError:
            raise WrongAddress(_EXPECTED) from None
        return cls(servers=tuple(servers), security=security)

    def client_arguments(self) -> dict[str, object]:
        """Return the arguments by which aiokafka's clients reach the cluster; the files are read now.

        Raises:
            Transient: a file cannot be read, or is not what it should be.
        """
        security = self.security
        arguments: dict[str, object] = {
            "bootstrap_servers": list(self.servers),
            "security_protocol": security.security_protocol,
        }
        try:
            if security.security_protocol.endswith("SSL"):
                arguments["ssl_context"] = _tls(security)
            if security.sasl_mechanism is not None:
                arguments["sasl_mechanism"] = security.sasl_mechanism
            if security.sasl_password_file is not None:
                arguments["sasl_plain_username"] = security.sasl_username
                arguments["sasl_plain_password"] = security.sasl_password_file.read_text().strip()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = (
                getattr(error, "strerror", None) or type(error).__name__
            )  # the message of the error quotes the path
            raise Transient(f"a file that the bus URL names cannot be used: {reason}"[:300]) from error
        if security.sasl_token_file is not None:
            arguments["sasl_oauth_token_provider"] = _TokenFile(security.sasl_token_file)
        return arguments


def _parameter(path: tuple[int | str, ...]) -> str:
    """Return the name of a known parameter; an unknown one may be anything, a secret too."""
    name = str(path[0]) if path else "the parameters"
    return name if name in KafkaSecurity.model_fields or not path else "an unknown parameter"


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Gives the token of a file to each new connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        try:
            return self._path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise Transient(f"the token file of the bus URL cannot be read: {type(error).__name__}") from error


def _tls(security: KafkaSecurity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=security.ssl_ca_file)
    if security.ssl_cert_file is not None:
        context.load_cert_chain(security.ssl_cert_file, security.ssl_key_file)
    return context

"""The settings of mock-eventing; no other module of this package reads the environment.

The service has neither database nor bus, so it shares only the settings of a process with the other services.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_process.production import is_weak
from service_process.settings import LOOPBACK, Mode
from shared_clients.errors import Permanent
from shared_clients.secret_files import SECRET_FOLDERS

SECRET_CHARACTERS: Final = 16
"""The least length of the shared secret."""


class Settings(BaseSettings):
    """The settings of mock-eventing, from the environment and from secret files.

    Attributes:
        mode: production does not start without a secret; dev starts without one on loopback only.
        host, port: where the ingress listens.
        log_level: debug, info, warning or error.
        log_json: whether a log line is a JSON object, as pods need it, or text.
        otlp_endpoint: the address of an OpenTelemetry collector; without it no traces are recorded.
        triggers: a YAML file with Knative's Trigger and Broker documents.
        events_secret: the bearer token of requests from senders, and of requests to subscribers.
        dead_letters: a file for events that no dead-letter sink took; without it such an event stays with its sender.
        accept_seconds: how long a sender waits for all subscribers before it gets 503 and has to send the event again.
        body_bytes: the largest body of a request; a batch is one request.
        held_bytes: bytes of all pending events; a request beyond is refused before its body is read.
        trigger_events: pending events of one trigger, with those that wait for their next try.
        trigger_requests: concurrent requests to one subscriber.
    """

    model_config = SettingsConfigDict(
        env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    mode: Mode = Mode.PRODUCTION
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    log_json: bool = True
    otlp_endpoint: str | None = None
    triggers: Path
    events_secret: SecretStr | None = None
    dead_letters: Path | None = None
    accept_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0
    body_bytes: Annotated[int, Field(ge=65_536, le=16_777_216)] = 1_048_576
    held_bytes: Annotated[int, Field(ge=1_048_576)] = 67_108_864
    trigger_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    trigger_requests: Annotated[int, Field(ge=1, le=1000)] = 32

    @property
    def secret(self) -> str:
        return self.events_secret.get_secret_value() if self.events_secret else ""

    def refuse_if_unfit(self) -> None:
        """Refuse settings that leave the ingress open to everyone.

        Raises:
            Permanent: the message names the setting.
        """
        if self.secret and len(self.secret) < SECRET_CHARACTERS:
            raise Permanent(f"FLOTILLA_EVENTS_SECRET is too short: expected {SECRET_CHARACTERS} characters or more")
        if self.mode is Mode.PRODUCTION and not self.secret:
            raise Permanent("FLOTILLA_EVENTS_SECRET is not set; it may be left out only with FLOTILLA_MODE=dev")
        if self.mode is Mode.PRODUCTION and is_weak(self.secret):
            raise Permanent("FLOTILLA_EVENTS_SECRET repeats a few characters; expected a random secret")
        if not self.secret and self.host not in LOOPBACK:
            expected = f"without FLOTILLA_EVENTS_SECRET it has to be one of {', '.join(sorted(LOOPBACK))}"
            raise Permanent(f"FLOTILLA_HOST: {expected}, which other machines cannot reach")

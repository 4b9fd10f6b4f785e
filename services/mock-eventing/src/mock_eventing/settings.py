"""The settings of mock-eventing; nothing else here reads the environment.

It has neither database nor bus, so it shares with the other services only what makes a process, under the same names.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_process.settings import LOOPBACK, Mode
from shared_clients.errors import Permanent
from shared_clients.secret_files import SECRET_FOLDERS

SECRET_CHARACTERS: Final = 16
"""Of a shared secret, at least."""


class Settings(BaseSettings):
    """What mock-eventing is told from outside.

    Attributes:
        mode: production refuses to run without a secret; dev, to be reached by others without one.
        host, port: where the ingress listens.
        log_level: debug, info, warning or error.
        log_json: one JSON object a line, for pods; text for people otherwise.
        otlp_endpoint: an OpenTelemetry collector; without it traces are not recorded.
        triggers: a YAML file with Knative's Trigger and Broker documents.
        events_secret: the bearer token that senders show to us and that we show to subscribers.
        dead_letters: a file that keeps what no dead-letter sink took; without it the sender keeps such an event.
        accept_seconds: how long a sender waits for all subscribers; then it is told to send the event again.
        body_bytes: of one request; a batch counts as one.
        held_bytes: of all events on their way; more are refused before they are read.
        trigger_events: events on their way to one subscriber, those between two tries among them.
        trigger_requests: requests to one subscriber at once.
    """

    model_config = SettingsConfigDict(env_prefix="FLOTILLA_", secrets_dir=SECRET_FOLDERS, extra="ignore", frozen=True)

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
        """Refuse an ingress that anybody can use.

        Raises:
            Permanent: naming the setting.
        """
        if self.secret and len(self.secret) < SECRET_CHARACTERS:
            raise Permanent(
                f"FLOTILLA_EVENTS_SECRET is too short: it has to have {SECRET_CHARACTERS} characters or more"
            )
        if self.mode is Mode.PRODUCTION and not self.secret:
            raise Permanent("FLOTILLA_EVENTS_SECRET is not set; only with FLOTILLA_MODE=dev is there no need for it")
        if not self.secret and self.host not in LOOPBACK:
            expected = f"without FLOTILLA_EVENTS_SECRET it has to be one of {', '.join(sorted(LOOPBACK))}"
            raise Permanent(f"FLOTILLA_HOST is {self.host}: {expected}, where nobody else gets in")

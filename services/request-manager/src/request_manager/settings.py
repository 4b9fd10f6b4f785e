"""The settings of request-manager; no other module of it reads the environment."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from service_process.settings import ProcessSettings


class Settings(ProcessSettings):
    """The settings of every process, and those of request-manager.

    Attributes:
        request_seconds: from acceptance to a request's deadline, after which it ends as expired.
        idempotency_hours: how long an Idempotency-Key is remembered; at least a day.
        max_pending: pending requests of all tenants, at most; more are refused.
        tenant_pending: pending requests of one tenant, at most; more are refused.
    """

    request_seconds: Annotated[float, Field(gt=0, le=86_400)] = 900.0
    idempotency_hours: Annotated[float, Field(ge=24)] = 48.0
    max_pending: Annotated[int, Field(ge=1)] = 50_000
    tenant_pending: Annotated[int, Field(ge=1)] = 10_000

    @property
    def lifetime(self) -> timedelta:
        return timedelta(seconds=self.request_seconds)

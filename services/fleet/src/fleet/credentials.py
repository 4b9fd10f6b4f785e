"""What the parts of a fleet on one machine have to know of each other, made once: keys, passwords, triggers.

In containers a job makes these before anything else starts, so that no password stands in a compose file, in an image
or in an environment. Each reader has a folder: who mounts it sees its own and nothing else.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from fleet.app import SERVICES
from fleet.home import MIN_KEY, kept_secret
from shared_clients.errors import Permanent
from shared_clients.identity import dump_trusted, generate_key, load_private, private_pem, trust
from shared_models.triggers import dump_triggers, triggers

ISSUER: Final = "api-gateway"


def write_gateway_key(private: Path, trusted: Path) -> None:
    """Make the key that the gateway signs with, once, and tell the services behind it whom to trust.

    Raises:
        Permanent: the key cannot be kept.
    """
    key = load_private(kept_secret(private, lambda: private_pem(generate_key())))
    trusted.write_text(dump_trusted(trust(ISSUER, key.public_key(), SERVICES)))


def write_credentials(folder: Path, *, database: str, redis: str, chosen_key: SecretStr | None) -> None:
    """Write what is missing and keep what is there, for the stores keep the passwords that they were made with.

    Args:
        folder: gets the folders `postgres`, `redis`, `broker`, `services` and `gateway`, for those who read them.
        database: where Postgres will be: `host[:port]/name`.
        redis: where Redis will be: `host[:port]`.
        chosen_key: the API key, if somebody chose one; otherwise one is made, once.

    Raises:
        Permanent: a folder cannot be written, or the chosen key is too short.
    """
    readers = [folder / name for name in ("postgres", "redis", "broker", "services", "gateway")]
    postgres, cache, broker, services, gateway = readers
    try:
        for reader in readers:
            reader.mkdir(exist_ok=True)
        database_password = _shared(postgres / "password", secrets.token_urlsafe)
        redis_password = _shared(cache / "password", secrets.token_urlsafe)
        (cache / "redis.conf").write_text(f"requirepass {redis_password}\nappendonly yes\n")
        for reader in (services, gateway):
            (reader / "flotilla_database_url").write_text(f"postgresql://flotilla:{database_password}@{database}")
            (reader / "flotilla_redis_url").write_text(f"redis://:{redis_password}@{redis}/0")
        events_secret = kept_secret(broker / "flotilla_events_secret", secrets.token_urlsafe)
        (services / "flotilla_events_secret").write_text(events_secret)
        (broker / "triggers.yaml").write_text(dump_triggers(triggers(lambda service: f"http://{service}:8080/events")))
        write_gateway_key(gateway / "gateway-key.pem", services / "trusted-keys.json")
        _write_api_key(gateway / "flotilla_auth_dev_key", chosen_key)
    except OSError as error:
        raise Permanent(f"cannot write credentials below {folder}: {error.strerror}") from error


def _write_api_key(path: Path, chosen: SecretStr | None) -> None:
    if chosen is None:
        _shared(path, lambda: f"fl-dev-{secrets.token_urlsafe(24)}")
    elif len(chosen.get_secret_value()) < MIN_KEY:
        raise Permanent(f"FLOTILLA_AUTH_DEV_KEY has to have at least {MIN_KEY} characters")
    else:
        path.write_text(chosen.get_secret_value())


def _shared(path: Path, make: Callable[[], str]) -> str:
    """Keep a secret whose reader is another user than we: who may enter its folder may read it."""
    secret = kept_secret(path, make)
    path.chmod(0o644)
    return secret

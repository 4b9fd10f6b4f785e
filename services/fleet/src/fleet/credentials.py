"""The credentials of a fleet on one machine, made once: keys, passwords and triggers.

In containers a job makes them before anything else starts, so that no password is in a compose file, in an image or in
an environment. Each service has a folder of its own: it mounts that folder and sees no other.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from fleet.app import SERVICES
from fleet.state_folder import MIN_KEY_LENGTH, load_or_make_secret
from shared_clients.errors import Permanent
from shared_clients.identity import dump_trusted, generate_key, load_private, private_pem, trust
from shared_models.triggers import dump_triggers, triggers

ISSUER: Final = "api-gateway"


def write_gateway_key(private: Path, trusted: Path) -> None:
    """Make the gateway's signing key once, and write the file of keys that the services behind it trust.

    Raises:
        Permanent: the key cannot be kept.
    """
    key = load_private(load_or_make_secret(private, lambda: private_pem(generate_key())))
    trusted.write_text(dump_trusted(trust(ISSUER, key.public_key(), SERVICES)))


def write_credentials(folder: Path, *, database: str, redis: str, chosen_key: SecretStr | None) -> None:
    """Write the credentials that are missing; existing ones stay, because the stores were made with them.

    Args:
        folder: the parent of the folders `postgres`, `redis`, `broker`, `services` and `gateway`, one for each reader.
        database: the address of Postgres: `host[:port]/name`.
        redis: the address of Redis: `host[:port]`.
        chosen_key: the API key, where the operator chose one; otherwise one is made, once.

    Raises:
        Permanent: a folder cannot be written, or the chosen key is too short.
    """
    readers = [folder / name for name in ("postgres", "redis", "broker", "services", "gateway")]
    postgres, cache, broker, services, gateway = readers
    try:
        for reader in readers:
            reader.mkdir(exist_ok=True)
        database_password = _secret_for_other_user(postgres / "password", secrets.token_urlsafe)
        redis_password = _secret_for_other_user(cache / "password", secrets.token_urlsafe)
        (cache / "redis.conf").write_text(f"requirepass {redis_password}\nappendonly yes\n")
        for reader in (services, gateway):
            (reader / "flotilla_database_url").write_text(f"postgresql://flotilla:{database_password}@{database}")
            (reader / "flotilla_redis_url").write_text(f"redis://:{redis_password}@{redis}/0")
        events_secret = load_or_make_secret(broker / "flotilla_events_secret", secrets.token_urlsafe)
        (services / "flotilla_events_secret").write_text(events_secret)
        (broker / "triggers.yaml").write_text(dump_triggers(triggers(lambda service: f"http://{service}:8080/events")))
        write_gateway_key(gateway / "gateway-key.pem", services / "trusted-keys.json")
        _write_api_key(gateway / "flotilla_auth_dev_key", chosen_key)
    except OSError as error:
        raise Permanent(f"cannot write credentials below {folder}: {error.strerror}") from error


def _write_api_key(path: Path, chosen: SecretStr | None) -> None:
    if chosen is None:
        _secret_for_other_user(path, lambda: f"fl-dev-{secrets.token_urlsafe(24)}")
    elif len(chosen.get_secret_value()) < MIN_KEY_LENGTH:
        raise Permanent(f"FLOTILLA_AUTH_DEV_KEY has to have at least {MIN_KEY_LENGTH} characters")
    else:
        path.write_text(chosen.get_secret_value())


def _secret_for_other_user(path: Path, make: Callable[[], str]) -> str:
    """Keep a secret that another user reads: every user who may enter its folder may read it."""
    secret = load_or_make_secret(path, make)
    path.chmod(0o644)
    return secret

"""Starts the gateway as a separate process: `python -m api_gateway`."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from api_gateway.app import NAME, open_app
from api_gateway.hop import ROUTES, Forwarder
from api_gateway.settings import Settings
from service_process.production import refuse_readable_file
from service_process.serving import run, serve
from service_process.settings import Mode
from service_process.web import draining
from shared_clients.egress import EgressPolicy
from shared_clients.errors import Permanent
from shared_clients.failpoints import arm
from shared_clients.identity import Credentials, DenyAll, DevKey, Issuer, load_private
from shared_clients.redis import open_redis
from shared_clients.telemetry import configure


async def main() -> None:
    settings = Settings()
    settings.refuse_if_unfit()
    await settings.refuse_if_role_unfit()
    arm(settings.failpoints, NAME)
    configure(NAME, level=settings.log_level, json=True, otlp_endpoint=settings.otlp_endpoint)
    async with AsyncExitStack() as stack:
        services = {
            name: await stack.enter_async_context(Forwarder(name, _urls(name, settings.service_urls)))
            for name in sorted({*ROUTES.values()})
        }
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        if settings.mode is Mode.PRODUCTION and settings.auth_private_key is not None:
            refuse_readable_file("FLOTILLA_AUTH_PRIVATE_KEY", settings.auth_private_key)
        issuer = Issuer(NAME, load_private(_read_key(settings.auth_private_key)))
        gateway = await stack.enter_async_context(
            open_app(settings, services, redis, issuer, keys=_credentials(settings))
        )
        await serve(gateway.app, host=settings.host, port=settings.port, draining=draining(gateway.app).set)


def _credentials(settings: Settings) -> Credentials:
    if settings.auth_dev_key is None:
        return DenyAll()
    if settings.mode is Mode.PRODUCTION:
        raise Permanent("FLOTILLA_AUTH_DEV_KEY is set, which production refuses: one key may do everything; unset it")
    return DevKey(settings.auth_dev_key.get_secret_value())


def _urls(name: str, urls: Mapping[str, Sequence[str]]) -> list[str]:
    bases = [url.strip().rstrip("/") for url in urls.get(name, ()) if url.strip()]
    if not bases:
        expected = f'{{"{name}": ["http://{name}:8080"]}}'
        raise Permanent(f"FLOTILLA_SERVICE_URLS names no base URL of {name}; expected a JSON object such as {expected}")
    try:
        EgressPolicy.of(bases)
    except ValueError as error:
        raise Permanent(f"FLOTILLA_SERVICE_URLS has a base URL of {name} that cannot be used: {error}") from error
    return bases


def _read_key(path: Path | None) -> str:
    if path is None:
        raise Permanent("FLOTILLA_AUTH_PRIVATE_KEY is not set; expected the path of a signing key (PEM, Ed25519)")
    try:
        return path.read_text()
    except OSError as error:
        detail = f"cannot be read: {error.strerror}; expected a file with a signing key (PEM, Ed25519)"
        raise Permanent(f"FLOTILLA_AUTH_PRIVATE_KEY ({path}) {detail}") from error


if __name__ == "__main__":
    run(main)

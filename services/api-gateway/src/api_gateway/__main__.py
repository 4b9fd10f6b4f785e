"""Starts the gateway as a separate process: `python -m api_gateway`."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from fastapi import FastAPI

from api_gateway.app import Gateway, open_app
from api_gateway.hop import Forwarder
from api_gateway.settings import Settings
from service_process.production import refuse_readable_file
from service_process.running import prepare
from service_process.serving import Listener, Stop, bind, run, serve, stop_signals
from service_process.settings import Mode, ProductionSettings, load_settings
from service_process.web import create_app, draining
from shared_clients.egress import EgressPolicy
from shared_clients.errors import Permanent
from shared_clients.identity import Credentials, DenyAll, DevKey, Issuer, load_private
from shared_clients.loops import Tasks
from shared_clients.redis import open_redis
from shared_clients.secret_files import read_named_file
from shared_models.services import API_GATEWAY, SERVICES, audiences


async def main() -> None:
    settings = load_settings(Settings)
    await prepare(API_GATEWAY, settings)
    async with AsyncExitStack() as stack:
        services = {
            name: await stack.enter_async_context(Forwarder(name, _urls(name, settings.service_urls)))
            for name in sorted(audiences())
        }
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        pem = _read_key(settings.auth_private_key)
        if settings.mode is Mode.PRODUCTION and settings.auth_private_key is not None:
            refuse_readable_file("FLOTILLA_AUTH_PRIVATE_KEY", settings.auth_private_key)
        issuer = Issuer(API_GATEWAY.name, load_private(pem))
        gateway = await stack.enter_async_context(
            open_app(settings, services, redis, issuer, keys=_credentials(settings))
        )
        stop = stack.enter_context(stop_signals())
        if settings.mode is Mode.PRODUCTION:
            listener = bind(settings.host, load_settings(ProductionSettings).metrics_port)
            tasks = await stack.enter_async_context(Tasks())
            tasks.start("serve metrics", lambda: serve_metrics(gateway, listener, stop))
        await _serve(gateway.app, bind(settings.host, settings.port), stop)


async def serve_metrics(gateway: Gateway, listener: Listener, stop: Stop) -> None:
    """Serve `/metrics` at a port of its own, because strangers reach the other one."""
    app = create_app("metrics", routers=[], ready=gateway.database.ping)
    await _serve(app, listener, stop)


async def _serve(app: FastAPI, listener: Listener, stop: Stop) -> None:
    await serve(app, host="", port=0, sockets=[listener], stop=stop, draining=draining(app).set)


def _credentials(settings: Settings) -> Credentials:
    if settings.auth_dev_key is None:
        return DenyAll()
    if settings.mode is Mode.PRODUCTION:
        raise Permanent("FLOTILLA_AUTH_DEV_KEY is set, which production refuses: one key may do everything; unset it")
    return DevKey(settings.auth_dev_key.get_secret_value())


def _urls(name: str, urls: Mapping[str, Sequence[str]]) -> list[str]:
    bases = [url.strip().rstrip("/") for url in urls.get(name, ()) if url.strip()]
    if not bases:
        expected = f'{{"{name}": ["{SERVICES[name].url}"]}}'
        raise Permanent(f"FLOTILLA_SERVICE_URLS names no base URL of {name}; expected a JSON object such as {expected}")
    try:
        EgressPolicy.of(bases)
    except ValueError as error:
        raise Permanent(f"FLOTILLA_SERVICE_URLS has a base URL of {name} that cannot be used: {error}") from error
    return bases


def _read_key(path: Path | None) -> str:
    if path is None:
        raise Permanent("FLOTILLA_AUTH_PRIVATE_KEY is not set; expected the path of a signing key (PEM, Ed25519)")
    return read_named_file("FLOTILLA_AUTH_PRIVATE_KEY", path, "a signing key (PEM, Ed25519)")


if __name__ == "__main__":
    run(main)

"""What Dockerfile and docker-compose.yaml promise, read without an engine; `make compose-test` runs the real thing.

A rule takes a text and yields complaints, so that its test can feed it the real file and, for good, a planted fault.
"""

import importlib
import inspect
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import yaml
from pydantic_settings import BaseSettings

from shared_models.services import API_GATEWAY, SERVICES, audiences

PINNED: Final = re.compile(r"^[a-z0-9./-]+:[a-z]*\d[\w.-]*$")
NUMERIC_USER: Final = re.compile(r"^[1-9]\d*:[1-9]\d*$")
SECRET_NAME: Final = re.compile(r"KEY|PASSWORD|SECRET|TOKEN|DATABASE_URL|REDIS_URL")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions in order, each with its argument on one line."""
    lines = (line for line in dockerfile.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), argument) for name, argument in split]


def origin_complaints(dockerfile: str) -> Iterator[str]:
    """Ask of an image that its bases have a version, and that packages are installed by hash."""
    every = instructions(dockerfile)
    given = dict(argument.partition("=")[::2] for kind, argument in every if kind == "ARG")
    stages = {argument.split()[-1] for kind, argument in every if kind == "FROM" and " AS " in argument}
    bases = {argument.split()[0] for kind, argument in every if kind == "FROM"}
    for base in sorted(
        {re.sub(r"\$\{(\w+)\}", lambda match: given.get(match[1], ""), base) for base in bases - stages}
    ):
        if not PINNED.match(base):
            yield f"FROM {base}: expected a tag with a version"
    for command in (part for kind, argument in every if kind == "RUN" for part in re.split(r"&&|\|\|", argument)):
        if "pip install" in command and not {"--require-hashes", "--offline"} & set(command.split()):
            yield f"RUN {command.strip()[:60]}: expected --require-hashes, or --offline for our own"


def process_complaints(dockerfile: str) -> Iterator[str]:
    """Ask of an image: a numeric user, the signal that drains, and forms that need no shell."""
    every = instructions(dockerfile)
    final = dict(every[max(place for place, (kind, _) in enumerate(every) if kind == "FROM") :])
    if not NUMERIC_USER.match(final.get("USER", "")):
        yield f"USER {final.get('USER')}: expected the numbers of a user and a group, not root's"
    if final.get("STOPSIGNAL") != "SIGTERM":
        yield "expected STOPSIGNAL SIGTERM: it makes a service drain"
    for kind in ("ENTRYPOINT", "HEALTHCHECK"):
        form = re.sub(r"^(--\S+ )*CMD ", "", final.get(kind, ""))
        if not form.startswith("["):
            yield f'{kind} {form}: expected the form ["program", …], without a shell'
        elif not all(isinstance(word, str) for word in json.loads(form)):
            yield f"{kind} {form}: expected a list of words"
    if "org.opencontainers.image.title" not in final.get("LABEL", ""):
        yield "expected the labels org.opencontainers.image.…"


def composed(text: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the services of a compose file."""
    services: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)["services"]
    return services


def hardening_complaints(text: str) -> Iterator[str]:
    """Ask of each container: nothing it may write to, no privilege, bounds, and to be seen when it is unwell."""
    for name, service in composed(text).items():
        if service.get("read_only") is not True:
            yield f"{name}: expected read_only: true"
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add") or service.get("privileged"):
            yield f"{name}: expected cap_drop: [ALL], and nothing that gives a privilege back"
        if service.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name}: expected security_opt: [no-new-privileges:true]"
        yield from (
            f"{name}: expected a bound {bound}" for bound in ("mem_limit", "cpus", "pids_limit") if bound not in service
        )
        if service.get("restart") == "unless-stopped" and "test" not in service.get("healthcheck", {}):
            yield f"{name}: expected a healthcheck"
        if "build" not in service and not PINNED.match(service.get("image", "")):
            yield f"{name}: the image {service.get('image')} has no version in its tag"
        user = str(service.get("user", "1:1"))
        if not NUMERIC_USER.match(user):
            yield f"{name}: the user {user} has to be two numbers, not root's"


def reach_complaints(text: str) -> Iterator[str]:
    """Ask that the host's loopback interface is the only way in, and that stores have no way out."""
    document = yaml.safe_load(text)
    for name, service in composed(text).items():
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: the port {port} has to be published on 127.0.0.1 alone"
        if service.get("network_mode") == "host":
            yield f"{name}: a container keeps a network of its own"
        if "build" not in service and service.get("networks") != ["inside"]:
            yield f"{name}: a store belongs into the network inside alone"
    if document["networks"]["inside"].get("internal") is not True:
        yield "the network inside has to be internal"


def secret_complaints(text: str) -> Iterator[str]:
    """Ask that no secret stands in the file: it is a path, or comes from outside."""
    for name, service in composed(text).items():
        for variable, value in (service.get("environment") or {}).items():
            if SECRET_NAME.search(variable) and value is not None and not str(value).startswith("/run/secrets/"):
                yield f"{name}: {variable} has to be a file in /run/secrets, or nothing"


def settings_complaints(text: str) -> Iterator[str]:
    """Ask that what a container of ours is told is something that its process reads."""
    for name, service in composed(text).items():
        if "build" not in service:
            continue
        package = str(service["build"]["args"]["SERVICE"]).replace("-", "_")
        told = {variable for variable in service.get("environment") or {} if variable.isupper()}
        yield from (f"{name}: {package} reads no {variable}" for variable in sorted(told - settings_of(package)))


def settings_of(package: str) -> set[str]:
    """Return the variables that a package's settings are read from."""
    module = importlib.import_module(f"{package}.settings")
    return {
        f"{owner.model_config.get('env_prefix', '')}{field}".upper()
        for _, owner in inspect.getmembers(module, inspect.isclass)
        if issubclass(owner, BaseSettings)
        for field in owner.model_fields
    }


def catalogue_complaints(text: str) -> Iterator[str]:
    """Ask that the containers' images, hosts and ports are those of the catalogue of services."""
    document = composed(text)
    gateway = document[API_GATEWAY.name]
    for entry in SERVICES.values():
        container = document.get(entry.name)
        if container is None:
            yield f"{entry.name}: expected a container, because the catalogue of services has it"
            continue
        if container["build"]["args"]["SERVICE"] != entry.name or container["image"] != f"flotilla/{entry.name}":
            yield f"{entry.name}: expected the image flotilla/{entry.name}, built of services/{entry.name}"
        port = str(container.get("environment", {}).get("FLOTILLA_PORT", entry.port))
        if port not in {str(entry.port), f"${{FLOTILLA_PORT:-{entry.port}}}"}:
            yield f"{entry.name}: the port {port} is not the catalogue's, which is {entry.port}"
        if entry.audience and entry.name not in gateway["depends_on"]:
            yield f"{API_GATEWAY.name}: expected depends_on: {entry.name}, which it calls"
    expected = {name: [SERVICES[name].url] for name in audiences()}
    if json.loads(gateway["environment"]["FLOTILLA_SERVICE_URLS"]) != expected:
        yield f"{API_GATEWAY.name}: expected FLOTILLA_SERVICE_URLS to be {json.dumps(expected)}"


def port_complaints(dockerfile: str) -> Iterator[str]:
    """Ask that the image listens on the one port that the catalogue gives to every service."""
    ports = {str(entry.port) for entry in SERVICES.values()}
    exposed = {argument for kind, argument in instructions(dockerfile) if kind == "EXPOSE"}
    listening = {
        found
        for kind, argument in instructions(dockerfile)
        if kind == "ENV"
        for found in re.findall(r"FLOTILLA_PORT=(\d+)", argument)
    }
    if not ports == exposed == listening:
        yield f"the ports {sorted(exposed | listening)} are not the catalogue's, which are {sorted(ports)}"


def missing_services(text: str, folders: Collection[str]) -> set[str]:
    """Return the folders of services/ that no container is made of."""
    built = {service["build"]["args"]["SERVICE"] for service in composed(text).values() if "build" in service}
    return set(folders) - built

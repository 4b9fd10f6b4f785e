"""The rules of production: settings and roles that are fit for a laptop only are refused at the start.

`ProcessSettings.refuse_if_unfit` applies the rules of addresses before anything opens. `refuse_unfit_role` asks the
database, and `refuse_readable_file` the file system. No message quotes a value, because an address holds a password.
"""

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from shared_clients.errors import Permanent
from shared_clients.postgres import open_database, sql

MIN_SECRET: Final = 16
"""Characters of a secret."""
MIN_DISTINCT: Final = 8
"""Different characters of a secret, against `aaaaaaaaaaaaaaaa` and its like."""
ENCRYPTED_SCHEMES: Final = frozenset({"https", "rediss", "unix"})
ENCRYPTED_KAFKA: Final = frozenset({"SSL", "SASL_SSL"})
ENCRYPTED_POSTGRES: Final = frozenset({"require", "verify-ca", "verify-full"})
OTHERS: Final = 0o007

SELECT_ROLE = sql("""
    SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user
""")


def refuse_unfit_store(name: str, url: str, *, trusted: bool) -> None:
    """Refuse the address of a store in memory, of one without encryption, and one with a weak password.

    Args:
        name: of the setting, for messages.
        url: of the store.
        trusted: whether a setting says that the network to this store is trusted without encryption.

    Raises:
        Permanent: names the setting and the remedy.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # whose message quotes the address
        raise Permanent(f"{name} is not an address; expected scheme://host:port") from None
    if parts.scheme == "memory":
        raise Permanent(f"{name} names a store in memory, which production refuses: a restart loses it")
    if not trusted and not _is_encrypted(parts):
        store = name.removeprefix("FLOTILLA_").removesuffix("_URL").lower()
        remedy = f"use TLS, or add {store} to FLOTILLA_TRUSTED_STORES if only this fleet can reach that network"
        raise Permanent(f"{name} names a store without encryption, which production refuses; {remedy}")
    by_password = parts.scheme in {"redis", "rediss"} or (_is_postgres(parts.scheme) and not _is_socket(parts))
    if by_password and is_weak(unquote(parts.password or "")):
        expected = f"a random password of at least {MIN_SECRET} characters, {MIN_DISTINCT} of them different"
        raise Permanent(f"{name} has no password or a weak one, which production refuses; expected {expected}")


def is_weak(secret: str) -> bool:
    """Tell whether a secret can be guessed: it is short, or it repeats a few characters."""
    return len(secret) < MIN_SECRET or len(set(secret)) < MIN_DISTINCT


async def refuse_unfit_role(url: str) -> None:
    """Refuse a database role that row-level security does not bind.

    Raises:
        Permanent: the role is a superuser, or bypasses row-level security.
        Transient: the database does not answer.
    """
    async with open_database(url, "public", pool_size=1) as database, database.autocommit() as tx:
        role = await tx.row(SELECT_ROLE)
    assert role is not None, "a session has a role"
    unfit = "is a superuser" if role["rolsuper"] else "has BYPASSRLS" if role["rolbypassrls"] else None
    if unfit:
        remedy = "use a role with NOSUPERUSER and NOBYPASSRLS; migrations use another one"
        raise Permanent(f"the role of FLOTILLA_DATABASE_URL {unfit}, which production refuses; {remedy}")


def refuse_readable_file(name: str, path: Path) -> None:
    """Refuse a file with a secret that every user of the machine may read or change.

    Raises:
        Permanent: names the setting and the remedy.
    """
    if path.exists() and path.stat().st_mode & OTHERS:
        raise Permanent(f"{name} ({path}) is open to other users, which production refuses; run: chmod o-rwx {path}")


def _is_postgres(scheme: str) -> bool:
    return scheme.partition("+")[0] in {"postgres", "postgresql"}


def _is_encrypted(parts: SplitResult) -> bool:
    """Tell whether an address asks for TLS or is a Unix socket."""
    parameters = parse_qs(parts.query)
    if _is_postgres(parts.scheme):
        return _is_socket(parts) or parameters.get("ssl", ["disable"])[-1] in ENCRYPTED_POSTGRES
    if parts.scheme == "kafka":
        return parameters.get("security_protocol", ["PLAINTEXT"])[-1] in ENCRYPTED_KAFKA
    return parts.scheme in ENCRYPTED_SCHEMES


def _is_socket(parts: SplitResult) -> bool:
    """Tell whether the address of a Postgres is a Unix socket: no host but folders in the parameter `host`."""
    hosts = parse_qs(parts.query).get("host", [])
    return parts.hostname is None and bool(hosts) and all(host.startswith("/") for host in ",".join(hosts).split(","))

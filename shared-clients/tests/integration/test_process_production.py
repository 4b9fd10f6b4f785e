"""Production refuses a database role that row-level security does not bind."""

from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest

from service_process.production import refuse_unfit_role
from shared_clients.errors import Permanent
from shared_clients.postgres import open_database, sql


async def url_of_role(admin_url: str, attributes: str) -> str:
    """Make a role and return the URL by which it connects."""
    name = f"role_{attributes.lower()}"
    async with open_database(admin_url, "public", pool_size=1) as database, database.autocommit() as tx:
        if not await tx.rows(sql("SELECT 1 FROM pg_roles WHERE rolname = :name"), name=name):
            await tx.run(sql(f"CREATE ROLE {name} LOGIN {attributes}"))
    parts = urlsplit(admin_url)
    return urlunsplit(parts._replace(netloc=f"{name}@{parts.netloc.rpartition('@')[2]}"))


@pytest.mark.parametrize(("attributes", "named"), [("SUPERUSER", "is a superuser"), ("BYPASSRLS", "has BYPASSRLS")])
async def test_role_above_row_level_security_is_refused(
    new_database: Callable[..., str], attributes: str, named: str
) -> None:
    with pytest.raises(Permanent, match=named):
        await refuse_unfit_role(await url_of_role(new_database(), attributes))


async def test_plain_role_is_accepted(new_database: Callable[..., str]) -> None:
    await refuse_unfit_role(await url_of_role(new_database(), "NOSUPERUSER"))

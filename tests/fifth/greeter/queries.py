"""The greeter's SQL: its jobs, and what became of them."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import RowMapping

from durable_work.jobs import Claim, ClaimedJob, JobTable
from shared_clients.postgres import Tx, sql
from shared_models.envelope import Envelope, EventContext

GREETINGS = JobTable("greetings", "greeting_id", returning="j.tenant, j.greeting_id AS key, j.epoch, j.tries, j.name")
INSERT = sql("""
    INSERT INTO greetings (tenant, greeting_id, name, ready_at) VALUES (:tenant, :key, :name, now())
    ON CONFLICT DO NOTHING
""")
STORE_END = sql("UPDATE greetings SET outcome = :outcome WHERE tenant = :tenant AND greeting_id = :key")


@dataclass(frozen=True, slots=True)
class Greeting(ClaimedJob):
    name: str

    @property
    def context(self) -> EventContext:
        return EventContext(str(self.claim.key), self.name, self.tenant)


def read_greeting(row: RowMapping) -> Greeting:
    return Greeting(Claim.of(row), row["name"])


async def insert_greeting(tx: Tx, event: Envelope, name: str) -> None:
    await tx.run(INSERT, tenant=event.tenantid, key=UUID(event.subject), name=name)


async def store_end(tx: Tx, greeting: Greeting, outcome: str) -> None:
    await tx.run(STORE_END, tenant=greeting.tenant, key=greeting.claim.key, outcome=outcome)

"""The audit log: what was decided is written with its effect, numbered and chained soon after, and can be verified.

`record` is what a use case calls. `sealing` makes the chain in each service's schema, `anchoring` signs its head where
Postgres cannot reach it, and `verifying` finds whatever was changed since.
"""

from durable_work.audit.recording import Actor, Entry, record

__all__ = ["Actor", "Entry", "record"]

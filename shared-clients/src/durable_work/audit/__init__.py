"""The audit log: an entry is written with the effect of a decision, sealed soon after, and can be verified.

A use case calls `record`. `sealing` numbers the entries of a service's schema and chains them by hash. `anchoring`
signs the head of the chain and stores it outside Postgres. `verifying` finds entries and seals that were changed since.
"""

from durable_work.audit.recording import Actor, Entry, record

__all__ = ["Actor", "Entry", "record"]

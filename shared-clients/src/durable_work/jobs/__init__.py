"""Jobs: durable work in a service's own table, done by one worker at a time, and taken over when that worker dies.

`leases` says which workers are alive. `statements` makes the SQL over a table that a service owns: claim, fence, hand
back, retry later. `slots` runs claimed jobs side by side in this process. `performing` stops jobs that were cancelled,
and repeats a write until the database has it.

A job is *ready* when a worker may claim it; then its `ready_at` is set. It is *blocked* while an earlier job has to end
first, *waiting* while it needs a result from outside, and *delayed* until its `due_at`. Only ready jobs are in the
index that a claim reads, so a claim costs the same however many jobs are blocked, waiting or delayed.
"""

from durable_work.jobs.leases import RENEW_SECONDS, WorkerLease
from durable_work.jobs.performing import ActiveJobs, until_stored
from durable_work.jobs.slots import Slots, run_slots
from durable_work.jobs.statements import Claim, JobTable

__all__ = [
    "RENEW_SECONDS",
    "ActiveJobs",
    "Claim",
    "JobTable",
    "Slots",
    "WorkerLease",
    "run_slots",
    "until_stored",
]

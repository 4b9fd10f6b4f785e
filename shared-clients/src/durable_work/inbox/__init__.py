"""The inbox: an event has its effect once, however often the bus delivers it.

The inbox row (consumer, source, id) is written in the transaction of the effect, and the bus gets its acknowledgement
after the commit. An event that cannot be handled now is parked: its bytes are stored here, and `Inbox.retry` handles
them later without the bus. An event that can never be handled is dead: its row keeps the bytes and the reason.

`consuming` leads a delivery to its outcome, `outcomes` says which failure means which outcome, `reactions` is the
interface to a service's handlers, and `queries` holds the SQL.
"""

from durable_work.inbox.consuming import Inbox
from durable_work.inbox.outcomes import MAX_ATTEMPTS, NotBelieved
from durable_work.inbox.reactions import Reaction

__all__ = ["MAX_ATTEMPTS", "Inbox", "NotBelieved", "Reaction"]

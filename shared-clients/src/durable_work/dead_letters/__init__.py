"""Dead letters of one service: seen, read, replayed and discarded, each on record.

A letter is an inbox row that cannot be handled or an outbox row that cannot be published; there is no second store, so
nothing can fall between two. `queries` finds and changes these rows, `settling` decides what may become of one, and
`door` is the HTTP that the gateway calls.
"""

from durable_work.dead_letters.door import dead_letter_routes
from durable_work.dead_letters.settling import DeadLetters

__all__ = ["DeadLetters", "dead_letter_routes"]

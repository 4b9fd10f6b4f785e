"""Dead letters of one service: listed, shown, replayed and discarded, each with an audit entry.

A letter is an inbox row that cannot be handled or an outbox row that cannot be published. There is no second store, so
no event is lost between two. `queries` finds and changes these rows, `settling` decides how one ends, and
`service_process.dead_letters` is the HTTP that the gateway calls.
"""

from durable_work.dead_letters.settling import DeadLetters

__all__ = ["DeadLetters"]

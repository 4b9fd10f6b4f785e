"""Dead letters of one service: listed, shown, replayed and discarded, each with an audit entry.

A letter is an inbox row whose event cannot be handled, or an outbox row whose event cannot be published. There is no
second store, so no event is lost between two stores. `queries` finds and changes these rows, `settling` replays and
discards them, and `service_process.dead_letters` has the HTTP routes that the gateway calls.
"""

from durable_work.dead_letters.settling import DeadLetters

__all__ = ["DeadLetters"]

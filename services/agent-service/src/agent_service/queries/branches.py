"""The SQL of branches: the turns that lead from the beginning of a session to one turn.

A turn follows the turn before it, or the one that its `after_turn` names. So a branch is a list of spans of consecutive
turns, and only turns with an `after_turn` have to be looked up; most sessions have none.
"""

from typing import Final

_SPAN: Final = """
    LEFT JOIN LATERAL (
        SELECT f.turn, f.after_turn FROM runs f
        WHERE f.tenant = :tenant AND f.session_id = {session} AND f.after_turn IS NOT NULL AND f.turn <= {last}
        ORDER BY f.turn DESC LIMIT 1
    ) fork ON true
"""
BRANCH: Final = f"""
    branch(first, last, rest) AS (
        SELECT coalesce(fork.turn, 1), tip.turn, coalesce(fork.after_turn, 0)
        FROM ({{tip}}) tip {_SPAN.format(session="{session}", last="tip.turn")}
        WHERE tip.turn > 0
        UNION ALL
        SELECT coalesce(fork.turn, 1), b.rest, coalesce(fork.after_turn, 0)
        FROM branch b {_SPAN.format(session="{session}", last="b.rest")}
        WHERE b.rest > 0
    )
"""
"""The spans of the branch whose last turn the statement `tip` returns, for `WITH RECURSIVE`."""

"""All SQL of request-manager: `accepting` stores requests, `requests` reads and ends them.

`reconciling` finds silent requests, and counts requests for the balance.
"""

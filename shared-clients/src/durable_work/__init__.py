"""Durable work, which survives a crash: outbox, inbox, leases, and their tables in each service's schema."""

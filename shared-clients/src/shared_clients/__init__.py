"""Access to the outside systems of a service: Postgres, Redis, the bus, HTTP, identity and telemetry."""

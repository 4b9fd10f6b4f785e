"""What a Flotilla service reaches outside itself: Postgres, Redis, the bus, HTTP, identity and telemetry."""

"""A service as a process: its HTTP, its settings, and an orderly start and stop."""

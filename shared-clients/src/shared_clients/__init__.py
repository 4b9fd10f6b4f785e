"""How a Flotilla service reaches what is outside it, does durable work, and runs as a process."""

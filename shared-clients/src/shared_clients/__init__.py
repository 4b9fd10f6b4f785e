"""How a Flotilla service reaches what is outside it, and runs as a process."""

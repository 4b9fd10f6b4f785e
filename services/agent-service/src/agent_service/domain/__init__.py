"""What agent-service knows: runs, and histories that a provider accepts. Pure."""

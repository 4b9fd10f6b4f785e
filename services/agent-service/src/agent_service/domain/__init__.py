"""The domain of agent-service: runs, sessions, agents, and histories that a provider accepts. Pure."""

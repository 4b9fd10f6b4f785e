"""The outside systems of agent-service: models, tools, and configuration files."""

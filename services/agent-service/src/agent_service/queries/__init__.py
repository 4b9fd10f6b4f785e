"""All SQL of agent-service: `runs` for work, `sessions` for what people look at."""

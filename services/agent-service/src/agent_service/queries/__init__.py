"""All SQL of agent-service: `runs` claims and performs runs, `ends` ends them, `sessions` serves the HTTP API."""

"""The metrics of agent-service."""

from shared_clients.metrics import counter, histogram

_RUN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

RUNS_ENDED = counter("flotilla_runs_ended_total", "Runs that ended, by terminal status.", "outcome")
RUN_SECONDS = histogram("flotilla_run_seconds", "Time from a run's first claim to its end.", _RUN_BUCKETS)
MODEL_CALLS = counter(
    "flotilla_model_calls_total",
    "Calls of a model, by provider and outcome: ok or the failure reason.",
    "provider",
    "outcome",
)
MODEL_TOKENS = counter(
    "flotilla_model_tokens_total", "Tokens that models read and wrote: input or output.", "provider", "direction"
)

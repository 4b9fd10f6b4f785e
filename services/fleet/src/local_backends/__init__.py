"""Real backends for tests and for `flotilla up --processes`: PostgreSQL with pgvector, Redis and Kafka.

`find_backend` takes a given address first, then a program of this machine in a folder of its own, then Docker. Tests
that kill a backend on purpose start it with `running_postgres`, `running_redis` or `running_kafka`.
"""

from local_backends.find import Kind, find_backend
from local_backends.kafka import ProxiedListener, running_kafka
from local_backends.postgres import running_postgres
from local_backends.redis import running_redis
from local_backends.server import Backend, MissingProgram

__all__ = [
    "Backend",
    "Kind",
    "MissingProgram",
    "ProxiedListener",
    "find_backend",
    "running_kafka",
    "running_postgres",
    "running_redis",
]

"""Real backends for tests and for `flotilla up --processes`: PostgreSQL with pgvector, Redis and Kafka.

`find` decides where one comes from: an address that was given, a program of this machine in its own folder, or Docker.
`postgres`, `redis` and `kafka` start the local ones; whoever kills them on purpose uses those directly.
"""

from local_backends.find import Kind, found
from local_backends.kafka import running_kafka
from local_backends.postgres import running_postgres
from local_backends.redis import running_redis
from local_backends.server import Backend, Missing

__all__ = ["Backend", "Kind", "Missing", "found", "running_kafka", "running_postgres", "running_redis"]

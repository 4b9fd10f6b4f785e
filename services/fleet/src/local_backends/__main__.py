"""`python -m local_backends` fetches Kafka's jars, which its first start would otherwise fetch."""

import asyncio
import sys

from local_backends.kafka import kafka_libraries
from shared_clients.errors import Permanent

if __name__ == "__main__":
    try:
        asyncio.run(kafka_libraries())
    except Permanent as error:
        sys.exit(str(error))

"""`python -m local_backends` fetches beforehand what a backend would otherwise fetch when it is first started."""

import asyncio
import sys

from local_backends.kafka import kafka_libraries
from shared_clients.errors import Permanent

if __name__ == "__main__":
    try:
        asyncio.run(kafka_libraries())
    except Permanent as error:
        sys.exit(str(error))

"""Connects as the environment says, and prints where to.

    python reach.py
"""

import asyncio
import os
import sys

from temporalio.client import Client
from temporalio.envconfig import ClientConfig


async def main():
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    assert await client.service_client.check_health()
    print(f"reached {client.service_client.config.target_host}")


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    # As in worker_test.py.
    os._exit(0)

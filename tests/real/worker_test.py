"""A test of a worker as a user of `stigmer local run` writes it: no address in it.

    stigmer local run -- python worker_test.py [EXIT_STATUS]

Exits with EXIT_STATUS (0) when the workflow did what it should.
"""

import asyncio
import os
import sys
import uuid
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Doubling:
    @workflow.run
    async def run(self, number: int) -> int:
        await workflow.sleep(0.1)
        return await workflow.execute_activity(double, number, start_to_close_timeout=timedelta(seconds=5))


async def main():
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    async with Worker(client, task_queue="doubling", workflows=[Doubling], activities=[double]):
        result = await client.execute_workflow(Doubling.run, 21, id=f"doubling-{uuid.uuid4()}", task_queue="doubling")
    assert result == 42, result
    print(f"the workflow says {result}")


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    # Not sys.exit: threads of the SDK abort the interpreter now and then while
    # it shuts down (2 of 40 runs, with no server at all).
    os._exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)

"""What a Temporal server carries: small workflows, many at a time.

    load.py COUNT IN_FLIGHT

Starts COUNT workflows of one activity each, at most IN_FLIGHT at a time, and
waits for their ends; before that it times single starts, one after the other.
Prints one object of JSON: workflows per second, and the seconds of each start.
The address comes from the environment.
"""

import asyncio
import json
import os
import sys
import time
import uuid
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

QUEUE = "load"
# Nobody works on these: what is timed is the start alone.
IDLE_QUEUE = "idle"
STARTS = 40
WARM_UP = 20


@activity.defn
async def step(number: int) -> int:
    return number + 1


@workflow.defn
class Small:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(step, number, start_to_close_timeout=timedelta(seconds=60))


async def main(count, in_flight):
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    starts = [await timed_start(client) for _ in range(STARTS)]
    async with Worker(client, task_queue=QUEUE, workflows=[Small], activities=[step]):
        await run_all(client, WARM_UP, in_flight)
        began = time.perf_counter()
        await run_all(client, count, in_flight)
        took = time.perf_counter() - began
    return {"per_second": count / took, "starts": starts}


async def timed_start(client):
    began = time.perf_counter()
    await client.start_workflow(Small.run, 0, id=str(uuid.uuid4()), task_queue=IDLE_QUEUE)
    return time.perf_counter() - began


async def run_all(client, count, in_flight):
    places = asyncio.Semaphore(in_flight)

    async def one(number):
        async with places:
            result = await client.execute_workflow(Small.run, number, id=str(uuid.uuid4()), task_queue=QUEUE)
            assert result == number + 1, result

    await asyncio.gather(*(one(number) for number in range(count)))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))), flush=True)
    # Threads of the SDK abort the interpreter now and then while it shuts down.
    os._exit(0)

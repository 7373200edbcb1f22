"""What the tests on the real Temporal do with it, through its Python SDK.

    workflows.py run ID              a worker, and one workflow to its end
    workflows.py begin ID SECONDS    a workflow until its timer of so many seconds runs
    workflows.py finish ID           a worker until that workflow has ended
    workflows.py read ID             result and history of one that ended earlier
    workflows.py stream              a worker, and workflow after workflow until
                                     stdin ends; then every one is checked
    workflows.py starts PREFIX       starts workflows, several at a time, until
                                     it is killed; a line for each acknowledged id
    workflows.py present             the ids on stdin that the server knows

But for `starts`, each prints one object of JSON. The address comes from the environment, as in
any program that uses the SDK's environment configuration.
"""

import asyncio
import itertools
import json
import os
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

QUEUE = "stigmer-test"
# Nobody works on these.
IDLE_QUEUE = "stigmer-idle"
STARTERS = 8
# A server that was killed is back in a second; one that is not is a failure.
PATIENCE_SECONDS = 60
STREAM_INTERVAL_SECONDS = 0.1
PASSING = {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.UNKNOWN}
PASSING |= {RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.ABORTED, RPCStatusCode.INTERNAL}


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str, seconds: float) -> str:
        greeting = await workflow.execute_activity(greet, name, start_to_close_timeout=timedelta(seconds=5))
        await workflow.sleep(seconds)
        return f"{greeting} Waited {seconds} s."


async def main(arguments):
    match arguments:
        case ["run", id]:
            client = await connect()
            async with worker(client):
                await start(client, id, 0.1)
                return await outcome(client, id)
        case ["begin", id, seconds]:
            client = await connect()
            async with worker(client):
                await start(client, id, float(seconds))
                while "timer_started" not in await history(client.get_workflow_handle(id)):
                    await asyncio.sleep(0.05)
            return {"begun": id}
        case ["finish", id]:
            client = await connect()
            async with worker(client):
                return await outcome(client, id)
        case ["read", id]:
            return await outcome(await connect(), id)
        case ["stream"]:
            return await stream()
        case ["starts", prefix]:
            return await starts(prefix)
        case ["present"]:
            return await present(sys.stdin.read().split())
    sys.exit(__doc__)


async def connect():
    return await Client.connect(**ClientConfig.load_client_connect_config())


def worker(client):
    return Worker(client, task_queue=QUEUE, workflows=[Greeting], activities=[greet])


async def start(client, id, seconds):
    try:
        await patiently(lambda: client.start_workflow(Greeting.run, args=[id, seconds], id=id, task_queue=QUEUE))
    except WorkflowAlreadyStartedError:
        # An attempt whose answer was lost had been carried out.
        pass


async def outcome(client, id):
    """Waits for the workflow's end, and reads all that the server knows of it."""
    handle = client.get_workflow_handle(id)
    result = await patiently(lambda: asyncio.wait_for(handle.result(), PATIENCE_SECONDS))
    names = await history(handle)
    description = await patiently(handle.describe)
    assert description.status == WorkflowExecutionStatus.COMPLETED, description.status
    return {"result": result, "history": names}


async def history(handle):
    """The names of the workflow's events."""
    events = (await patiently(handle.fetch_history)).events
    ids = [event.event_id for event in events]
    assert ids == list(range(1, len(ids) + 1)), f"the history of {handle.id} has holes: {ids}"
    return [event.WhichOneof("attributes").removesuffix("_event_attributes") for event in events]


async def patiently(attempt):
    """Repeats what failed because the server was away."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            return await attempt()
        except RPCError as error:
            if error.status not in PASSING or loop.time() > deadline:
                raise
        await asyncio.sleep(0.05)


async def stream():
    client = await connect()
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ids = []
    async with worker(client):
        while not ended.done():
            id = f"stream-{len(ids)}"
            await start(client, id, 0.2)
            ids.append(id)
            if len(ids) == 1:
                print("streaming", flush=True)
            await asyncio.sleep(STREAM_INTERVAL_SECONDS)
        for id in ids:
            told = await outcome(client, id)
            assert told["result"] == f"Hello, {id}! Waited 0.2 s.", told
            for event in ["activity_task_completed", "timer_fired", "workflow_execution_completed"]:
                assert told["history"].count(event) == 1, told
    return {"completed": len(ids)}


async def starts(prefix):
    client = await connect()

    async def lane(number):
        for count in itertools.count():
            id = f"{prefix}-{number}-{count}"
            await client.start_workflow(Greeting.run, args=[id, 0.0], id=id, task_queue=IDLE_QUEUE)
            # One write for a line: a kill must not leave half of one.
            os.write(1, f"{id}\n".encode())

    await asyncio.gather(*(lane(number) for number in range(STARTERS)))


async def present(ids):
    client = await connect()
    found = 0
    for id in ids:
        try:
            await client.get_workflow_handle(id).describe()
            found += 1
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
    return {"asked": len(ids), "present": found}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))), flush=True)
    # See worker_test.py.
    os._exit(0)

"""A few tests as a user of `stigmer local run --ephemeral -- pytest` writes
them: with no address in them, and each with the whole Temporal to itself and
its neighbours."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        if not name:
            raise ApplicationError("nobody to greet", non_retryable=True)
        return await workflow.execute_activity(greet, name, start_to_close_timeout=timedelta(seconds=10))


async def greeting_of(name):
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    queue = f"greetings-{uuid.uuid4()}"
    async with Worker(client, task_queue=queue, workflows=[Greeting], activities=[greet]):
        return await client.execute_workflow(Greeting.run, name, id=queue, task_queue=queue)


def test_a_greeting_names_whom_it_greets():
    assert asyncio.run(greeting_of("Ada")) == "Hello, Ada!"


def test_nobody_is_not_greeted():
    with pytest.raises(WorkflowFailureError):
        asyncio.run(greeting_of(""))


def test_only_what_these_tests_started_is_there():
    async def ids():
        client = await Client.connect(**ClientConfig.load_client_connect_config())
        return [execution.id async for execution in client.list_workflows()]

    assert all(name.startswith("greetings-") for name in asyncio.run(ids()))

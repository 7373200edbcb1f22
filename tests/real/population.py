"""A database full of workflows of all kinds, and what becomes of them.

    population.py fill COUNT      makes them, of each kind as many as of another, and a schedule
    population.py inventory       all lists, and the history of each workflow that has ended
    population.py finish COUNT    a worker until every one has done what it had to do

Each prints one object of JSON. The namespace has the search attributes that
`ATTRIBUTES` names; the address comes from the environment.
"""

import asyncio
import hashlib
import json
import os
import sys
from datetime import datetime, timedelta, timezone

from temporalio import activity, workflow
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

QUEUE = "population"
# Longer than it takes from `fill` to the next list.
SLEEP = timedelta(seconds=40)
AT_ONCE = 20
PATIENCE_SECONDS = 120
KEYWORD = SearchAttributeKey.for_keyword("OrderId")
NUMBER = SearchAttributeKey.for_int("Amount")
TEXT = SearchAttributeKey.for_text("Remark")
FLAG = SearchAttributeKey.for_bool("Urgent")
RATIO = SearchAttributeKey.for_float("Ratio")
TIME = SearchAttributeKey.for_datetime("Due")
LIST = SearchAttributeKey.for_keyword_list("Labels")

# Those that have ended when `fill` ends, and those that have not.
ENDED = ["complete", "fail", "terminate", "cancel", "again"]
OPEN = ["sleep", "signal", "child", "retry", "idle", "update"]
STATES = {"complete": "COMPLETED", "fail": "FAILED", "terminate": "TERMINATED", "cancel": "CANCELED"}

QUERIES = [
    "WorkflowType = 'Kind'",
    "WorkflowType = 'Kind' AND ExecutionStatus = 'Running'",
    "WorkflowType = 'Kind' AND ExecutionStatus = 'Completed'",
    "WorkflowType = 'Kind' AND ExecutionStatus IN ('Failed', 'Terminated', 'Canceled', 'ContinuedAsNew')",
    "OrderId = 'order-7'",
    "OrderId STARTS_WITH 'order-1'",
    "Amount BETWEEN 10 AND 40",
    "Remark = 'seldom'",
    "Remark = 'common'",
    "Urgent = true",
    "Ratio > 10.2",
    "Due < '2030-01-20T00:00:00Z'",
    "Labels = 'label-3'",
    "Labels IN ('label-1', 'label-2') AND Urgent = false",
]


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@activity.defn
async def unwilling(name: str) -> str:
    if os.environ.get("POPULATION_FINISHES") != "yes":
        raise ApplicationError("not now")
    return f"Hello, {name}!"


@workflow.defn
class Leaf:
    def __init__(self) -> None:
        self.told = ""

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.told != "")
        return self.told

    @workflow.signal
    def tell(self, word: str) -> None:
        self.told = word


@workflow.defn
class Tick:
    @workflow.run
    async def run(self) -> str:
        return "tick"


@workflow.defn
class Kind:
    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self, kind: str, turn: int) -> str:
        name = workflow.info().workflow_id
        quick = {"start_to_close_timeout": timedelta(seconds=10)}
        match kind:
            case "complete":
                return await workflow.execute_activity(greet, name, **quick)
            case "fail":
                raise ApplicationError("as it shall", non_retryable=True)
            case "terminate" | "cancel":
                await workflow.sleep(1_000_000)
            case "again" if turn < 2:
                workflow.continue_as_new(args=[kind, turn + 1])
            case "again":
                return "third"
            case "sleep":
                await workflow.execute_activity(greet, name, **quick)
                await workflow.sleep(SLEEP)
                return "slept"
            case "child":
                return await workflow.execute_child_workflow(Leaf.run, id=f"leaf-of-{name}")
            case "retry":
                policy = RetryPolicy(initial_interval=timedelta(seconds=15), backoff_coefficient=1.0)
                return await workflow.execute_activity(unwilling, name, retry_policy=policy, **quick)
        await workflow.wait_condition(lambda: len(self.words) == 2)
        return " ".join(self.words)

    @workflow.signal
    def word(self, word: str) -> None:
        self.words.append(word)

    @workflow.update
    def add(self, word: str) -> int:
        self.words.append(word)
        return len(self.words)


def ids(kinds, count):
    each = count // (len(ENDED) + len(OPEN))
    return [(kind, number, f"{kind}-{number}") for kind in kinds for number in range(each)]


async def at_once(work, items):
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item):
        async with gate:
            return await asyncio.wait_for(work(item), PATIENCE_SECONDS)

    return await asyncio.gather(*(one(item) for item in items))


def attributes(number):
    words = "common seldom" if number % 10 == 3 else "common often"
    return TypedSearchAttributes(
        [
            SearchAttributePair(KEYWORD, f"order-{number}"),
            SearchAttributePair(NUMBER, number),
            SearchAttributePair(TEXT, f"{words} number{number}"),
            SearchAttributePair(FLAG, number % 2 == 0),
            SearchAttributePair(RATIO, number * 0.75),
            SearchAttributePair(TIME, datetime(2030, 1, 1 + number % 28, tzinfo=timezone.utc)),
            SearchAttributePair(LIST, [f"label-{number % 5}", "all"]),
        ]
    )


def worker(client):
    return Worker(client, task_queue=QUEUE, workflows=[Kind, Leaf, Tick], activities=[greet, unwilling])


async def begin(client, kind, number, id):
    handle = await client.start_workflow(
        Kind.run,
        args=[kind, 0],
        id=id,
        task_queue=QUEUE if kind != "idle" else f"{QUEUE}-idle",
        search_attributes=attributes(number),
        memo={"number": number, "text": "ü" * 20},
    )
    if kind in ["signal", "idle"]:
        await handle.signal(Kind.word, "before")
    if kind == "update":
        assert await handle.execute_update(Kind.add, "before") == 1
    return handle


async def fill(client, count):
    async with worker(client):
        await client.create_schedule(
            "ticking",
            Schedule(
                action=ScheduleActionStartWorkflow(Tick.run, id="tick", task_queue=QUEUE),
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(seconds=1))]),
            ),
        )

        async def make(item):
            kind, number, id = item
            handle = await begin(client, kind, number, id)
            if kind in ["terminate", "cancel"]:
                await (handle.terminate("as it shall") if kind == "terminate" else handle.cancel())
            if kind in ENDED:
                try:
                    await handle.result()
                except WorkflowFailureError:
                    pass

        await at_once(make, ids(ENDED + OPEN, count))
        # What the open ones began with is done, and can be found.
        sleeping = [item for item in ids(OPEN, count) if item[0] == "sleep"]
        await at_once(lambda item: until(lambda: has_timer(client, item[2])), sleeping)
        children = [item for item in ids(OPEN, count) if item[0] == "child"]
        await at_once(lambda item: until(lambda: is_there(client, f"leaf-of-{item[2]}")), children)
        await until(lambda: is_complete(client, count))
        await until(lambda: has_ticked(client, 2))
    return {"made": count}


async def until(condition):
    while not await condition():
        await asyncio.sleep(0.1)
    return True


async def has_timer(client, id):
    history = await client.get_workflow_handle(id).fetch_history()
    return any(event.WhichOneof("attributes") == "timer_started_event_attributes" for event in history.events)


async def is_there(client, id):
    return await client.count_workflows(f"WorkflowId = '{id}'")


async def is_complete(client, count):
    made = len(ids(ENDED + OPEN, count))
    again = len([1 for kind, *_ in ids(ENDED, count) if kind == "again"])
    found = (await client.count_workflows("WorkflowType = 'Kind'")).count
    running = (await client.count_workflows("WorkflowType = 'Kind' AND ExecutionStatus = 'Running'")).count
    return found == made + 2 * again and running == len(ids(OPEN, count))


async def has_ticked(client, times):
    return len((await client.get_schedule_handle("ticking").describe()).info.recent_actions) >= times


async def inventory(client):
    """Every list, each entry with all that a list shows; the ended ones with their history."""
    lists, ended = {}, []
    for query in [*QUERIES, "WorkflowType = 'Leaf'"]:
        entries = []
        async for entry in client.list_workflows(query):
            # A random order among equal times.
            times = [str(entry.start_time), str(entry.execution_time), str(entry.close_time)]
            found = sorted(map(str, entry.typed_search_attributes))
            told = [str(entry.status), entry.history_length, entry.parent_id, entry.workflow_type, entry.task_queue]
            entries.append([entry.id, entry.run_id, *told, *times, found, await entry.memo()])
            if query == QUERIES[0] and entry.status != WorkflowExecutionStatus.RUNNING:
                ended.append((entry.id, entry.run_id))
        assert len(entries) == (await client.count_workflows(query)).count, query
        lists[query] = sorted(entries, key=lambda entry: entry[1])

    async def digest(item):
        history = await client.get_workflow_handle(item[0], run_id=item[1]).fetch_history()
        return [item[1], digest_of(json.loads(history.to_json()))]

    histories = sorted(await at_once(digest, ended))
    schedules = [schedule.id async for schedule in await client.list_schedules()]
    counts = {query: len(entries) for query, entries in lists.items()}
    return {"digest": digest_of([lists, histories, schedules]), "histories": len(histories), "counts": counts}


def digest_of(value):
    # The order within a map is the server's mood.
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


async def finish(client, count):
    os.environ["POPULATION_FINISHES"] = "yes"
    idle = Worker(client, task_queue=f"{QUEUE}-idle", workflows=[Kind])
    async with worker(client), idle:

        async def end(item):
            kind, _, id = item
            handle = client.get_workflow_handle(id)
            if kind in ["signal", "idle"]:
                await handle.signal(Kind.word, "after")
            if kind == "update":
                assert await handle.execute_update(Kind.add, "after") == 2, id
            if kind == "child":
                await client.get_workflow_handle(f"leaf-of-{id}").signal(Leaf.tell, "leaf")
            result = await handle.result()
            expected = {"sleep": "slept", "child": "leaf", "retry": f"Hello, {id}!"}.get(kind, "before after")
            assert result == expected, (id, result)

        await at_once(end, ids(OPEN, count))
        for kind, _, id in ids(ENDED, count):
            status = (await client.get_workflow_handle(id).describe()).status
            assert status.name == STATES.get(kind, "COMPLETED"), (id, status)
        # The schedule goes on, is described, and others can be made.
        handle = client.get_schedule_handle("ticking")
        before = (await handle.describe()).info.num_actions

        async def goes_on():
            return (await handle.describe()).info.num_actions >= before + 2

        await asyncio.wait_for(until(goes_on), PATIENCE_SECONDS)
        await handle.pause()
        await handle.unpause()
        other = await client.create_schedule("another", (await handle.describe()).schedule)
        await other.describe()
        await other.delete()
        await begin(client, "complete", 1, "one-more")
        assert await client.get_workflow_handle("one-more").result() == "Hello, one-more!"
    return {"finished": len(ids(OPEN, count)), "ended": len(ids(ENDED, count))}


async def main(arguments):
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    match arguments:
        case ["fill", count]:
            return await fill(client, int(count))
        case ["inventory"]:
            return await inventory(client)
        case ["finish", count]:
            return await finish(client, int(count))
    sys.exit(__doc__)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))), flush=True)
    # See worker_test.py.
    os._exit(0)

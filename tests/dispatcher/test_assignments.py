"""What a node is told: completeness, order, secrets by use, sizes. Pure values, then whole streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmcore.api.dispatcher_pb2 import AssignmentChange, AssignmentsMessage
from swarmcore.api.objects_pb2 import Config, Secret, Task, Volume
from swarmcore.api.types_pb2 import TaskState, VolumePublishStatus, VolumeSecret
from swarmcore.dispatcher.assignments import MESSAGE_BYTES, AssignmentSet, concerns_node
from swarmcore.testing.clock import let_the_loop_run

LIMIT = 4 * 1024 * 1024


class Shelf:
    """Secrets and configs by id; every id exists unless it is said to be missing."""

    def __init__(self, missing: frozenset[str] = frozenset(), size: int = 10) -> None:
        self.missing = missing
        self.size = size

    def secret(self, id: str) -> Secret | None:
        if id in self.missing:
            return None
        secret = Secret(id=id)
        secret.spec.data = b"s" * self.size
        return secret

    def config(self, id: str) -> Config | None:
        return None if id in self.missing else Config(id=id)


def said(message: AssignmentsMessage | None) -> list[str]:
    """The changes as words: `+task t1`, `-secret s1`."""
    assert message is not None
    words = []
    for change in message.changes:
        kind = change.assignment.WhichOneof("item")
        sign = "-" if change.action == AssignmentChange.REMOVE else "+"
        words.append(f"{sign}{kind} {getattr(change.assignment, str(kind)).id}")
    return words


def rest(assigned: AssignmentSet) -> list[AssignmentsMessage]:
    messages = []
    while (message := assigned.incremental()) is not None:
        messages.append(message)
    return messages


def test_the_first_message_is_complete_and_each_names_the_one_before(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf())
    assigned.put(task_of("t1", "n1"))

    first = assigned.complete()
    assigned.put(task_of("t2", "n1"))
    second = assigned.incremental()

    assert (first.type, first.applies_to, first.results_in) == (AssignmentsMessage.COMPLETE, "", "1")
    assert second is not None
    assert (second.type, second.applies_to, second.results_in) == (AssignmentsMessage.INCREMENTAL, "1", "2")
    assert said(first) == ["+task t1"]
    assert said(second) == ["+task t2"]
    assert assigned.incremental() is None


def test_secrets_come_before_their_first_user_and_go_with_their_last(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf())
    assigned.put(task_of("t1", "n1", secrets=["s1"], configs=["c1"]))
    assigned.put(task_of("t2", "n1", secrets=["s1"]))

    first = said(assigned.complete())
    assigned.drop("t1")
    second = said(assigned.incremental())
    assigned.put(task_of("t2", "n1", TaskState.FAILED, secrets=["s1"]))
    third = said(assigned.incremental())

    assert first.index("+secret s1") < first.index("+task t1")
    assert first.count("+secret s1") == 1
    assert sorted(second) == ["-config c1", "-task t1"]
    assert sorted(third) == ["+task t2", "-secret s1"]


def test_a_secret_that_is_used_again_before_its_removal_was_sent_stays(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf())
    assigned.put(task_of("t1", "n1", secrets=["s1"]))
    assigned.complete()

    assigned.drop("t1")
    assigned.put(task_of("t2", "n1", secrets=["s1"]))

    assert sorted(said(assigned.incremental())) == ["+task t2", "-task t1"]


def test_a_missing_secret_is_left_out(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf(missing=frozenset({"s1"})))
    assigned.put(task_of("t1", "n1", secrets=["s1", "s2"]))

    assert said(assigned.complete()) == ["+secret s2", "+task t1"]
    assigned.drop("t1")
    assert sorted(said(assigned.incremental())) == ["-secret s2", "-task t1"]


def test_a_task_that_ended_before_the_node_came_is_not_sent(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf())
    assigned.put(task_of("dead", "n1", TaskState.FAILED, secrets=["s1"]))
    assigned.put(task_of("live", "n1", TaskState.RUNNING))

    assert said(assigned.complete()) == ["+task live"]


def test_what_came_and_went_between_two_messages_is_never_said(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf())
    assigned.complete()

    assigned.put(task_of("t1", "n1", secrets=["s1"]))
    assigned.drop("t1")

    assert not assigned.has_pending
    assert assigned.incremental() is None


def test_a_large_set_is_sent_in_messages_that_every_agent_takes(task_of: Any) -> None:
    assigned = AssignmentSet("n1", Shelf(size=400_000))
    for number in range(50):
        assigned.put(task_of(f"t{number}", "n1", secrets=[f"s{number}"]))

    messages = [assigned.complete(), *rest(assigned)]

    assert len(messages) > 10
    assert all(message.ByteSize() < LIMIT for message in messages)
    assert all(message.ByteSize() < MESSAGE_BYTES * 1.5 for message in messages)
    assert [message.type for message in messages] == [
        AssignmentsMessage.COMPLETE,
        *[AssignmentsMessage.INCREMENTAL] * (len(messages) - 1),
    ]
    chain = [message.applies_to for message in messages[1:]]
    assert chain == [message.results_in for message in messages[:-1]]
    words = [word for message in messages for word in said(message)]
    assert len(words) == len(set(words)) == 100


def test_the_first_message_has_every_task_that_the_node_may_have_started(task_of: Any) -> None:
    """An agent ends what a COMPLETE message leaves out."""
    assigned = AssignmentSet("n1", Shelf(size=400_000))
    for number in range(20):
        assigned.put(task_of(f"new-{number}", "n1", secrets=[f"s{number}"]))
        assigned.put(task_of(f"runs-{number}", "n1", TaskState.RUNNING, secrets=[f"s{number}"]))

    first = said(assigned.complete())

    assert {f"+task runs-{number}" for number in range(20)} <= set(first)
    assert len(first) < 30


@pytest.mark.parametrize(
    ("old", "new", "concerns"),
    [
        (None, TaskState.PENDING, False),
        (None, TaskState.ASSIGNED, True),
        (TaskState.PENDING, TaskState.ASSIGNED, True),
        (TaskState.ASSIGNED, TaskState.ACCEPTED, False),
        (TaskState.STARTING, TaskState.RUNNING, False),
        (TaskState.RUNNING, TaskState.FAILED, True),
    ],
)
def test_a_node_hears_only_of_changes_that_are_not_its_own_progress(
    task_of: Any, old: TaskState.ValueType | None, new: TaskState.ValueType, concerns: bool
) -> None:
    before = None if old is None else task_of("t1", "n1", old)

    assert concerns_node(before, task_of("t1", "n1", new)) is concerns


def test_a_new_desired_state_concerns_the_node(task_of: Any) -> None:
    before = task_of("t1", "n1", TaskState.RUNNING)
    after = task_of("t1", "n1", TaskState.RUNNING)
    after.desired_state = TaskState.SHUTDOWN

    assert concerns_node(before, after)


def test_a_volume_is_given_when_published_and_taken_when_to_be_unpublished() -> None:
    assigned = AssignmentSet("n1", Shelf())
    volume = Volume(id="v1")
    entry = volume.publish_status.add(node_id="n1", state=VolumePublishStatus.PENDING_PUBLISH)
    volume.spec.secrets.add().MergeFrom(VolumeSecret(secret="s1"))  # noqa: S106 - an id
    assigned.put_volume(volume)
    first = said(assigned.complete())

    entry.state = VolumePublishStatus.PUBLISHED
    assigned.put_volume(volume)
    second = said(assigned.incremental())
    entry.state = VolumePublishStatus.PENDING_NODE_UNPUBLISH
    assigned.put_volume(volume)
    third = said(assigned.incremental())

    assert first == []
    assert second == ["+secret s1", "+volume v1"]
    assert sorted(third) == ["-secret s1", "-volume v1"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "end", "drop", "send"]),
        st.integers(0, 4),
        st.sets(st.sampled_from(["s1", "s2", "s3"]), max_size=2),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_a_node_that_follows_the_stream_has_what_its_live_tasks_need(steps: list[tuple[str, int, set[str]]]) -> None:
    assigned = AssignmentSet("n1", Shelf())
    live: dict[str, Task] = {}
    everything: dict[str, Task] = {}
    tasks: set[str] = set()
    secrets: set[str] = set()

    def follow(message: AssignmentsMessage) -> None:
        for change in message.changes:
            assignment = change.assignment
            held = tasks if assignment.WhichOneof("item") == "task" else secrets
            id = assignment.task.id or assignment.secret.id
            if change.action == AssignmentChange.REMOVE:
                held.remove(id)
            else:
                if held is tasks and assignment.task.status.state <= TaskState.RUNNING:
                    assert {ref.secret_id for ref in assignment.task.spec.container.secrets} <= secrets
                held.add(id)

    follow(assigned.complete())
    for what, number, needed in steps:
        id = f"t{number}"
        if what == "put" and id not in everything:
            task = Task(id=id, node_id="n1")
            task.status.state = TaskState.ASSIGNED
            for secret in sorted(needed):
                task.spec.container.secrets.add(secret_id=secret)
            live[id] = everything[id] = task
            assigned.put(task)
        elif what == "end" and id in live:
            ended = Task()
            ended.CopyFrom(live.pop(id))
            ended.status.state = TaskState.FAILED
            everything[id] = ended
            assigned.put(ended)
        elif what == "drop" and id in everything:
            live.pop(id, None)
            del everything[id]
            assigned.drop(id)
        elif what == "send":
            for message in rest(assigned):
                follow(message)
    for message in rest(assigned):
        follow(message)

    assert tasks == set(everything)
    assert secrets == {ref.secret_id for task in live.values() for ref in task.spec.container.secrets}


# Whole streams


async def test_a_node_gets_its_own_tasks_and_no_others(world: Any, task_of: Callable[..., Task]) -> None:
    await world.add_nodes("n1", "n2")
    await world.put_tasks(task_of("mine", "n1"), task_of("theirs", "n2"), task_of("dead", "n1", TaskState.FAILED))
    agent = await world.agent("n1")

    watch = await agent.assignments()
    await world.put_tasks(task_of("mine-too", "n1"), task_of("theirs-too", "n2"))
    await world.delete_tasks("mine", "theirs")

    assert [said(message) for message in watch.messages] == [["+task mine"], ["+task mine-too"], ["-task mine"]]


async def test_assignments_need_a_session(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    agent.session.messages[0].session_id = "another"

    watch = await agent.assignments()

    assert str(watch.error) == "session invalid"


async def test_one_change_is_sent_without_waiting(world: Any, task_of: Callable[..., Task]) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    watch = await agent.assignments()
    before = world.clock.monotonic()

    await world.put_tasks(task_of("t1", "n1"))

    assert said(watch.messages[-1]) == ["+task t1"]
    assert world.clock.monotonic() == before


async def test_in_a_rush_each_node_gets_one_message_for_many_changes(world: Any, task_of: Callable[..., Task]) -> None:
    nodes = [f"n{number}" for number in range(40)]
    await world.add_nodes(*nodes)
    watches = [await (await world.agent(node)).assignments() for node in nodes]

    for round in range(5):
        await world.put_tasks(*[task_of(f"t{round}-{node}", node) for node in nodes])
    await world.clock.advance(1)

    assert all(sum(len(message.changes) for message in watch.messages) == 5 for watch in watches)
    assert all(len(watch.messages) == 2 for watch in watches)


async def test_a_second_stream_takes_over_from_the_first(world: Any, task_of: Callable[..., Task]) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    first = await agent.assignments()
    second = await agent.assignments()

    await world.put_tasks(task_of("t1", "n1"))

    assert str(first.error) == "a newer stream of the same session has taken over"
    assert [said(message) for message in second.messages] == [[], ["+task t1"]]


async def test_the_deprecated_list_of_tasks_comes_whole_at_each_change(
    world: Any, task_of: Callable[..., Task]
) -> None:
    from swarmcore.api.dispatcher_pb2 import TasksRequest

    await world.add_nodes("n1")
    agent = await world.agent("n1")
    lists = world.listen(world.dispatcher.Tasks(TasksRequest(session_id=agent.session_id), agent.caller))
    await let_the_loop_run()

    await world.put_tasks(task_of("t1", "n1"))
    await world.put_tasks(task_of("t2", "n1"))
    await world.delete_tasks("t1")

    assert [[task.id for task in message.tasks] for message in lists.messages] == [[], ["t1"], ["t1", "t2"], ["t2"]]


async def test_a_resync_repairs_what_was_missed(world: Any, task_of: Callable[..., Task]) -> None:
    await world.add_nodes("n1")
    await world.put_tasks(task_of("stays", "n1"), task_of("goes", "n1"))
    agent = await world.agent("n1")
    watch = await agent.assignments()

    other: Any
    from swarmcore.store.store import Store

    other = Store()
    pieces = list(world.store.snapshot())
    other.restore(world.store.version, pieces)
    other._tables["task"].remove("goes")
    other._tables["task"].put(task_of("comes", "n1"))
    world.store.restore(world.store.version + 1, list(other.snapshot()))
    await let_the_loop_run()

    words = said(watch.messages[-1])
    assert "-task goes" in words
    assert "+task comes" in words

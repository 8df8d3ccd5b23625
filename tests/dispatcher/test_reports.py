"""What nodes report: who may, what counts, what is refused, and how it is written."""

from __future__ import annotations

from typing import Any

import pytest

from swarmcore.api.dispatcher_pb2 import SessionRequest, UpdateTaskStatusRequest, UpdateVolumeStatusRequest
from swarmcore.api.types_pb2 import TaskState
from swarmcore.dispatcher.requests import check_session, task_updates, unpublished_volumes
from swarmcore.dispatcher.writes import WriteQueue
from swarmcore.errors import InvalidArgumentError, PermissionDeniedError, ResourceExhaustedError
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run


async def test_a_report_is_written_at_once_when_idle_with_who_applied_it(
    world: Any, task_of: Any, status_of: Any
) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    await world.put_tasks(task_of("t1", "n1"))

    await agent.report(("t1", status_of(TaskState.RUNNING, "started")))

    written = world.task("t1").status
    assert written.state == TaskState.RUNNING
    assert written.message == "started"
    assert written.applied_by == "manager-1"
    assert written.applied_at.seconds == int(world.clock.now())


async def test_a_call_with_a_task_of_another_node_changes_nothing(world: Any, task_of: Any, status_of: Any) -> None:
    await world.add_nodes("n1", "n2")
    agent = await world.agent("n1")
    await world.put_tasks(task_of("mine", "n1"), task_of("theirs", "n2"))

    with pytest.raises(PermissionDeniedError, match="cannot update a task not assigned this node"):
        await agent.report(("mine", status_of(TaskState.RUNNING)), ("theirs", status_of(TaskState.FAILED)))
    await let_the_loop_run()

    assert world.task("mine").status.state == TaskState.ASSIGNED
    assert world.task("theirs").status.state == TaskState.ASSIGNED


async def test_a_task_never_goes_back_and_unknown_tasks_are_ignored(world: Any, task_of: Any, status_of: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    await world.put_tasks(task_of("t1", "n1", TaskState.RUNNING))

    await agent.report(("t1", status_of(TaskState.STARTING)), ("nobody", status_of(TaskState.RUNNING)))

    assert world.task("t1").status.state == TaskState.RUNNING


async def test_a_report_that_comes_again_is_no_write(world: Any, task_of: Any, status_of: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    await world.put_tasks(task_of("t1", "n1"))
    await agent.report(("t1", status_of(TaskState.RUNNING, "started")))
    version = world.store.version

    await world.clock.advance(0.5)
    await agent.report(("t1", status_of(TaskState.RUNNING, "started")))

    assert world.store.version == version


async def test_of_two_reports_that_wait_the_later_state_counts(world: Any, task_of: Any, status_of: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    await world.put_tasks(task_of("t1", "n1"))

    await agent.report(("t1", status_of(TaskState.FAILED)), ("t1", status_of(TaskState.RUNNING)))

    assert world.task("t1").status.state == TaskState.FAILED


async def test_reports_of_many_nodes_share_transactions(world: Any, task_of: Any, status_of: Any) -> None:
    nodes = [f"n{number}" for number in range(20)]
    await world.add_nodes(*nodes)
    agents = [await world.agent(node) for node in nodes]
    await world.put_tasks(*[task_of(f"t{number}-{node}", node) for node in nodes for number in range(10)])
    version = world.store.version

    for agent in agents:
        request = UpdateTaskStatusRequest(session_id=agent.session_id)
        for number in range(10):
            request.updates.add(task_id=f"t{number}-{agent.node_id}", status=status_of(TaskState.RUNNING))
        await world.dispatcher.UpdateTaskStatus(request, agent.caller)
    await let_the_loop_run()

    assert all(task.status.state == TaskState.RUNNING for task in world.store.view.task.all())
    assert world.store.version - version <= 3


async def test_volumes_that_a_node_gave_up_wait_to_be_unpublished(world: Any) -> None:
    from swarmcore.api.objects_pb2 import Volume
    from swarmcore.api.types_pb2 import VolumePublishStatus

    await world.add_nodes("n1", "n2")
    agent = await world.agent("n1")
    volume = Volume(id="v1")
    volume.spec.annotations.name = "v1"
    for node in ("n1", "n2"):
        volume.publish_status.add(node_id=node, state=VolumePublishStatus.PENDING_NODE_UNPUBLISH)
    await world.store.update(lambda tx: tx.volume.create(volume))

    request = UpdateVolumeStatusRequest(session_id=agent.session_id)
    request.updates.add(id="v1", unpublished=True)
    request.updates.add(id="not there", unpublished=True)
    await world.dispatcher.UpdateVolumeStatus(request, agent.caller)
    await let_the_loop_run()

    states = {entry.node_id: entry.state for entry in world.store.view.volume.get("v1").publish_status}
    assert states["n1"] == VolumePublishStatus.PENDING_UNPUBLISH
    assert states["n2"] == VolumePublishStatus.PENDING_NODE_UNPUBLISH


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: setattr(r, "session_id", "x" * 65), "session_id"),
        (lambda r: setattr(r.updates[0], "task_id", "x" * 65), r"updates\[0\].task_id"),
        (lambda r: setattr(r.updates[0].status, "state", 123), r"updates\[0\].status.state"),
        (lambda r: setattr(r.updates[0].status.container, "container_id", "x" * 70_000), r"updates\[0\].status: is"),
        (lambda r: [r.updates.add() for _ in range(20_001)], "updates: has"),
    ],
)
def test_a_hostile_report_is_refused_with_the_name_of_the_field(change: Any, field: str) -> None:
    request = UpdateTaskStatusRequest(session_id="s")
    request.updates.add(task_id="t1").status.state = TaskState.RUNNING
    change(request)

    with pytest.raises(InvalidArgumentError, match=field) as refused:
        task_updates(request)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_long_texts_of_an_honest_engine_are_cut_and_not_refused() -> None:
    request = UpdateTaskStatusRequest(session_id="s")
    status = request.updates.add(task_id="t1").status
    status.state = TaskState.FAILED
    status.err = "e" * 1_000_000

    [(_, kept)] = task_updates(request)

    assert len(kept.err) == 4096
    assert kept.state == TaskState.FAILED


def test_a_report_without_a_status_says_nothing() -> None:
    request = UpdateTaskStatusRequest(session_id="s")
    request.updates.add(task_id="t1")

    assert task_updates(request) == []


def test_an_oversize_description_is_refused_with_the_name_of_the_field() -> None:
    named = SessionRequest()
    named.description.hostname = "h" * 300
    labelled = SessionRequest()
    labelled.description.engine.labels["k"] = "v" * 300_000

    with pytest.raises(InvalidArgumentError, match=r"description\.hostname"):
        check_session(named)
    with pytest.raises(InvalidArgumentError, match="description: is 300"):
        check_session(labelled)


def test_an_oversize_volume_id_is_refused_with_the_name_of_the_field() -> None:
    request = UpdateVolumeStatusRequest(session_id="s")
    request.updates.add(id="v" * 65, unpublished=True)

    with pytest.raises(InvalidArgumentError, match=r"updates\[0\]\.id"):
        unpublished_volumes(request)


async def test_a_full_disk_delays_writes_and_loses_none(world: Any, task_of: Any, status_of: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    await world.put_tasks(task_of("t1", "n1"))
    proposer = world.store._proposer
    propose = proposer.propose

    async def refuse(data: bytes, token: object) -> None:
        raise ResourceExhaustedError("the disk is full")

    proposer.propose = refuse
    await agent.report(("t1", status_of(TaskState.RUNNING)))
    during = world.task("t1").status.state
    proposer.propose = propose
    await world.clock.advance(2)

    assert during == TaskState.ASSIGNED
    assert world.task("t1").status.state == TaskState.RUNNING


def test_more_than_fits_is_refused_before_anything_is_taken() -> None:
    queue = WriteQueue[int]("numbers", lambda tx, item: None, SimulatedClock(), limit=2)
    queue.put("a", 1)

    queue.check_room(1)
    with pytest.raises(ResourceExhaustedError, match="too many numbers wait"):
        queue.check_room(2)

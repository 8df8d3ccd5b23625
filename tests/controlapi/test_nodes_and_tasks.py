"""Nodes: listed, changed, demoted, accepted, removed. Tasks: listed, removed."""

from __future__ import annotations

from typing import Any

import pytest

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec, ServiceSpec
from swarmcore.api.types_pb2 import (
    Annotations,
    EngineDescription,
    NodeDescription,
    NodeRole,
    NodeStatus,
    RaftMemberStatus,
    TaskState,
    TaskStatus,
    Version,
)
from swarmcore.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    SequenceConflictError,
)

MANAGER, WORKER = NodeRole.MANAGER, NodeRole.WORKER


def node(
    id: str,
    role: NodeRole.ValueType = WORKER,
    state: NodeStatus.State.ValueType = NodeStatus.READY,
    membership: NodeSpec.Membership.ValueType = NodeSpec.ACCEPTED,
    **labels: str,
) -> Node:
    return Node(
        id=id,
        spec=NodeSpec(desired_role=role, membership=membership, annotations=Annotations(labels=labels)),
        role=role,
        status=NodeStatus(state=state),
        description=NodeDescription(hostname=f"host-{id}", engine=EngineDescription(labels={"disk": "ssd"})),
    )


def member(setup: Any, node_id: str, **more: Any) -> None:
    setup.add_member(node_id, raft_id=7, address="10.0.0.7:4242", **more)


async def update(setup: Any, id: str, version: int = 1, **spec: Any) -> Node:
    request = pb.UpdateNodeRequest(node_id=id, node_version=Version(index=version), spec=NodeSpec(**spec))
    changed: Node = (await setup.control.UpdateNode(request, None)).node
    return changed


async def remove(setup: Any, id: str, force: bool = False) -> None:
    await setup.control.RemoveNode(pb.RemoveNodeRequest(node_id=id, force=force), None)


async def test_managers_are_shown_with_what_raft_knows_of_them(setup: Any) -> None:
    await setup.put(node("m", MANAGER), node("w"))
    member(setup, "m", is_leader=True)

    listed = (await setup.control.ListNodes(pb.ListNodesRequest(), None)).nodes
    got = (await setup.control.GetNode(pb.GetNodeRequest(node_id="m"), None)).node

    assert [other.id for other in listed] == ["m", "w"]
    assert listed[0] == got
    assert got.manager_status.raft_id == 7
    assert got.manager_status.addr == "10.0.0.7:4242"
    assert got.manager_status.leader
    assert got.manager_status.reachability == RaftMemberStatus.REACHABLE
    assert not listed[1].HasField("manager_status")
    assert not setup.store.view.node.get("m").HasField("manager_status")


async def test_listing_nodes(setup: Any) -> None:
    await setup.put(
        node("a", MANAGER, rack="r1"), node("b", membership=NodeSpec.PENDING), node("c", rack="r2"), node("d")
    )

    async def ids(**filters: Any) -> list[str]:
        request = pb.ListNodesRequest(filters=pb.ListNodesRequest.Filters(**filters))
        return [found.id for found in (await setup.control.ListNodes(request, None)).nodes]

    assert await ids(names=["host-a", "host-c"]) == ["a", "c"]
    assert await ids(name_prefixes=["host-"]) == ["a", "b", "c", "d"]
    assert await ids(id_prefixes=["b"]) == ["b"]
    assert await ids(node_labels={"rack": ""}) == ["a", "c"]
    assert await ids(node_labels={"rack": "r2"}) == ["c"]
    assert await ids(labels={"disk": "ssd"}) == ["a", "b", "c", "d"]
    assert await ids(labels={"rack": ""}) == []
    assert await ids(roles=[MANAGER]) == ["a"]
    assert await ids(memberships=[NodeSpec.PENDING]) == ["b"]
    assert await ids(memberships=[NodeSpec.PENDING], roles=[MANAGER]) == []


async def test_updating_a_node(setup: Any) -> None:
    await setup.put(node("w"))

    changed = await update(setup, "w", availability=NodeSpec.DRAIN, membership=NodeSpec.ACCEPTED)

    assert changed.spec.availability == NodeSpec.DRAIN
    assert changed.description.hostname == "host-w"
    await setup.refused(update(setup, "w"), SequenceConflictError, "update out of sequence")
    await setup.refused(update(setup, "nobody"), NotFoundError, "node nobody not found")
    await setup.refused(update(setup, ""), InvalidArgumentError, "node_id is empty")
    await setup.refused(update(setup, "w", 2, desired_role=9), InvalidArgumentError, "spec.desired_role")
    bad = Annotations(name="a\x1b[2Jb")
    await setup.refused(update(setup, "w", 2, annotations=bad), InvalidArgumentError, "annotations.name")
    bad = Annotations(labels={"a\nb": ""})
    await setup.refused(update(setup, "w", 2, annotations=bad), InvalidArgumentError, "spec.annotations.labels")
    for request, field in (
        (pb.UpdateNodeRequest(node_id="w", spec=NodeSpec()), "node_version"),
        (pb.UpdateNodeRequest(node_id="w", node_version=Version(index=2)), "spec is missing"),
    ):
        await setup.refused(setup.control.UpdateNode(request, None), InvalidArgumentError, field)


async def test_the_last_manager_stays_one(setup: Any) -> None:
    await setup.put(node("m", MANAGER), node("w"))
    member(setup, "m", is_leader=True)

    text = "attempting to demote the last manager of the swarm"
    await setup.refused(update(setup, "m", desired_role=WORKER), FailedPreconditionError, text)


async def test_demotion_keeps_a_quorum(setup: Any) -> None:
    await setup.put(*(node(id, MANAGER) for id in "abc"))

    text = "can't find manager a in raft memberlist"
    await setup.refused(update(setup, "a", desired_role=WORKER), NotFoundError, text)
    member(setup, "a", is_leader=True)
    member(setup, "b")
    member(setup, "c", reachability=RaftMemberStatus.UNREACHABLE)
    text = "this would result in a loss of quorum"
    await setup.refused(update(setup, "b", desired_role=WORKER), FailedPreconditionError, text)

    assert (await update(setup, "c", desired_role=WORKER)).spec.desired_role == WORKER


async def test_removing_a_node_orphans_its_tasks(setup: Any) -> None:
    await setup.put(
        node("w", state=NodeStatus.DOWN),
        Task(id="live", node_id="w", status=TaskStatus(state=TaskState.RUNNING)),
        Task(id="done", node_id="w", status=TaskStatus(state=TaskState.COMPLETE)),
        Task(id="other", node_id="x", status=TaskStatus(state=TaskState.RUNNING)),
    )

    await remove(setup, "w")

    view = setup.store.view
    assert view.node.get("w") is None
    assert view.task.get("live").status.state == TaskState.ORPHANED
    assert view.task.get("live").status.message == "Task belonged to a node that has been deleted"
    assert view.task.get("done").status.state == TaskState.COMPLETE
    assert view.task.get("other").status.state == TaskState.RUNNING
    assert setup.ops.removed == ["w"]
    # One transaction for the objects, one for the removal.
    assert setup.store.version == 2


async def test_a_node_with_very_many_tasks_can_be_removed(setup: Any) -> None:
    await setup.put(node("w", state=NodeStatus.DOWN))
    for start in range(0, 4_000, 500):
        await setup.put(
            *(
                Task(id=f"t{n}", node_id="w", status=TaskStatus(state=TaskState.RUNNING, message="x" * 1_000))
                for n in range(start, start + 500)
            )
        )

    await remove(setup, "w")

    assert {task.status.state for task in setup.store.view.task.all()} == {TaskState.ORPHANED}


@pytest.mark.parametrize("state", [NodeStatus.DOWN, NodeStatus.UNKNOWN, NodeStatus.DISCONNECTED])
async def test_a_node_that_is_not_ready_can_be_removed(setup: Any, state: Any) -> None:
    await setup.put(node("w", state=state))

    await remove(setup, "w")

    assert len(setup.store.view.node) == 0


async def test_which_nodes_stay(setup: Any) -> None:
    await setup.put(node("w"), node("m", MANAGER, NodeStatus.DOWN), node("n", MANAGER, NodeStatus.DOWN))
    await setup.refused(remove(setup, ""), InvalidArgumentError, "node_id is empty")
    await setup.refused(remove(setup, "x\ny"), InvalidArgumentError, "node_id")
    await setup.refused(remove(setup, "nobody"), NotFoundError, "node nobody not found")
    text = "node w is not down and can't be removed"
    await setup.refused(remove(setup, "w"), FailedPreconditionError, text)
    text = "cannot access node information from the raft memberlist"
    await setup.refused(remove(setup, "m", force=True), FailedPreconditionError, text)
    member(setup, "m", is_leader=True)
    text = "must be demoted to worker before removal"
    await setup.refused(remove(setup, "m", force=True), FailedPreconditionError, text)

    # A manager that raft no longer counts, and one that is ready, by force.
    await remove(setup, "n")
    await remove(setup, "w", force=True)
    assert [left.id for left in setup.store.view.node.all()] == ["m"]


@pytest.mark.parametrize("role", [WORKER, MANAGER])
async def test_a_waiting_node_is_accepted_or_rejected(setup: Any, role: NodeRole.ValueType) -> None:
    await setup.put(
        node("m", MANAGER),
        node("one", role, NodeStatus.UNKNOWN, NodeSpec.PENDING),
        node("two", role, NodeStatus.UNKNOWN, NodeSpec.PENDING),
    )
    member(setup, "m", is_leader=True)

    accepted = await update(setup, "one", desired_role=role, membership=NodeSpec.ACCEPTED)
    await remove(setup, "two", force=True)

    assert accepted.spec.membership == NodeSpec.ACCEPTED
    assert [left.id for left in setup.store.view.node.all()] == ["m", "one"]


async def test_a_waiting_node_can_be_made_a_worker(setup: Any) -> None:
    await setup.put(node("m", MANAGER), node("one", MANAGER, NodeStatus.UNKNOWN, NodeSpec.PENDING))
    member(setup, "m", is_leader=True)

    accepted = await update(setup, "one", desired_role=WORKER, membership=NodeSpec.ACCEPTED)

    assert accepted.spec.desired_role == WORKER


def task(id: str, service_id: str, slot: int, node_id: str, **more: Any) -> Task:
    annotations = Annotations(name="web", labels={"tier": "front"})
    return Task(id=id, service_id=service_id, slot=slot, node_id=node_id, service_annotations=annotations, **more)


async def test_listing_tasks(setup: Any) -> None:
    service = Service(id="s1", spec=ServiceSpec(annotations=Annotations(name="web")))
    service.spec.task.container.image = "nginx:2"
    new = task("t3", "s1", 1, "n1")
    new.spec.container.image = "nginx:2"
    await setup.put(
        service,
        task("t1", "s1", 1, "n1", desired_state=TaskState.RUNNING),
        task("t2", "s2", 2, "n2", desired_state=TaskState.SHUTDOWN),
        new,
        task("t4", "s3", 0, "n2"),
    )

    async def ids(**filters: Any) -> list[str]:
        request = pb.ListTasksRequest(filters=pb.ListTasksRequest.Filters(**filters))
        return [found.id for found in (await setup.control.ListTasks(request, None)).tasks]

    assert await ids() == ["t1", "t2", "t3", "t4"]
    assert await ids(service_ids=["s1", "s1"]) == ["t1", "t3"]
    assert await ids(service_ids=["s1"], node_ids=["n2"]) == []
    assert await ids(node_ids=["n2", "n9"]) == ["t2", "t4"]
    assert await ids(desired_states=[TaskState.RUNNING, TaskState.SHUTDOWN]) == ["t1", "t2"]
    assert await ids(names=["web.1.t1", "web.n2.t4", "nothing"]) == ["t1", "t4"]
    assert await ids(name_prefixes=["web.2"]) == ["t2"]
    assert await ids(id_prefixes=["t3"]) == ["t3"]
    assert await ids(labels={"tier": "front"}, id_prefixes=["t4"]) == ["t4"]
    assert await ids(up_to_date=True) == ["t3"]
    assert await ids(runtimes=["container"]) == ["t3"]


async def test_the_tasks_of_a_service_or_a_node_are_found_by_index(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await setup.put(task("t1", "s1", 1, "n1"), task("t2", "s2", 2, "n2"))
    whole = "t" * 25
    await setup.put(task(whole, "s3", 1, "n3"))

    def scan() -> object:
        raise AssertionError("every task was looked at")

    monkeypatch.setattr(type(setup.store.view.task), "all", lambda self: scan())
    filters = pb.ListTasksRequest.Filters
    for given in (filters(service_ids=["s1"]), filters(node_ids=["n1"]), filters(id_prefixes=[whole])):
        request = pb.ListTasksRequest(filters=given)
        assert len((await setup.control.ListTasks(request, None)).tasks) == 1
    monkeypatch.undo()


async def test_getting_and_removing_a_task(setup: Any) -> None:
    await setup.put(task("t1", "s1", 1, "n1"))

    got = await setup.control.GetTask(pb.GetTaskRequest(task_id="t1"), None)
    await setup.control.RemoveTask(pb.RemoveTaskRequest(task_id="t1"), None)

    assert got.task.slot == 1
    assert len(setup.store.view.task) == 0
    call = setup.control.RemoveTask(pb.RemoveTaskRequest(task_id="t1"), None)
    await setup.refused(call, NotFoundError, "task t1 not found")
    call = setup.control.GetTask(pb.GetTaskRequest(task_id="t1"), None)
    await setup.refused(call, NotFoundError, "task t1 not found")

"""What the brake holds stays as it is; what it lets go is replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import MappingProxyType

import pytest
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.api.brake import MARK, RELEASED
from swarmcore.api.objects_pb2 import Node, Service
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.orchestrator import components
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.fleet import Component, Swarm, running_swarm

POLICIES = PluginSet(restart_policies=MappingProxyType({"default": DefaultPolicy()}))
NODES = ("n1", "n2", "n3", "n4")


def make(clock: SimulatedClock) -> Sequence[Component]:
    return components(plugins=lambda: POLICIES, clock=clock)


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    async with running_swarm(make, NODES) as swarm:
        yield swarm


def service(id: str, replicas: int = 0) -> Service:
    """Replicated; without replicas one on each node."""
    made = Service(id=id)
    made.spec.annotations.name = id
    if replicas:
        made.spec.replicated.replicas = replicas
    else:
        getattr(made.spec, "global").SetInParent()
    return made


async def lose(swarm: Swarm, *ids: str, message: str) -> None:
    def down(node: Node) -> None:
        node.status.state, node.status.message = NodeStatus.DOWN, message

    for id in ids:
        await swarm.change_node(id, down)


def snapshot(swarm: Swarm, id: str) -> list[bytes]:
    return sorted(task.SerializeToString(deterministic=True) for task in swarm.tasks(id))


async def test_no_task_of_a_held_node_is_touched(swarm: Swarm) -> None:
    await swarm.create_service(service("web", 8))
    await swarm.create_service(service("agent"))
    await swarm.advance(10)
    before = snapshot(swarm, "web"), snapshot(swarm, "agent")

    await lose(swarm, "n2", "n3", "n4", message=f"{MARK}: for a reason")
    await swarm.advance(400)

    assert (snapshot(swarm, "web"), snapshot(swarm, "agent")) == before


async def test_what_is_let_go_is_replaced(swarm: Swarm) -> None:
    await swarm.create_service(service("web", 8))
    await swarm.advance(10)
    await lose(swarm, "n2", "n3", "n4", message=MARK)
    await swarm.advance(30)

    await lose(swarm, "n2", "n3", "n4", message=RELEASED)
    await swarm.advance(30)

    assert len(swarm.running("web")) == 8
    assert {task.node_id for task in swarm.running("web")} == {"n1"}


async def test_nodes_that_come_back_have_what_they_had(swarm: Swarm) -> None:
    await swarm.create_service(service("web", 8))
    await swarm.advance(10)
    before = snapshot(swarm, "web")
    await lose(swarm, "n2", "n3", "n4", message=MARK)
    await swarm.advance(60)

    for id in ("n2", "n3", "n4"):
        await swarm.set_node_state(id, NodeStatus.READY)
    await swarm.advance(60)

    assert snapshot(swarm, "web") == before
    assert len(swarm.running("web")) == 8


async def test_a_service_made_meanwhile_goes_to_the_nodes_that_are_there(swarm: Swarm) -> None:
    await lose(swarm, "n2", "n3", "n4", message=MARK)

    await swarm.create_service(service("web", 4))
    await swarm.create_service(service("agent"))
    await swarm.advance(10)

    assert {task.node_id for task in swarm.running("web")} == {"n1"}
    assert {task.node_id for task in swarm.tasks("agent")} == {"n1"}

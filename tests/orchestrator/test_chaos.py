"""Whatever happens in whatever order, a swarm that is left in peace ends as its services ask."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from types import MappingProxyType

import pytest
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.allocator.allocator import Allocator
from swarmcore.api.objects_pb2 import Service
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, RestartPolicy, UpdateConfig
from swarmcore.orchestrator import components
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import SimulatedClock
from swarmcore.testing.fleet import Component, Swarm, running_swarm

POLICIES = PluginSet(restart_policies=MappingProxyType({"default": DefaultPolicy()}))
NODES = ("n1", "n2", "n3", "n4")


def make(clock: SimulatedClock) -> Sequence[Component]:
    return [*components(plugins=lambda: POLICIES, clock=clock), Allocator(clock=clock)]


def service(id: str, *, is_global: bool) -> Service:
    made = Service(id=id)
    made.spec.annotations.name = id
    made.spec.task.container.image = "app:0"
    made.spec.task.restart.condition = RestartPolicy.ANY
    made.spec.task.restart.delay.seconds = 1
    made.spec.update.failure_action = UpdateConfig.CONTINUE
    made.spec.update.monitor.seconds = 1
    if is_global:
        getattr(made.spec, "global").SetInParent()
    else:
        made.spec.replicated.replicas = 4
    return made


class Chaos:
    """Things that happen, chosen by a seed."""

    def __init__(self, swarm: Swarm, random: Random) -> None:
        self.swarm = swarm
        self.random = random

    async def happen(self) -> None:
        await self.random.choice([self.scale, self.update, self.node, self.node, self.failures, self.leader])()
        await self.swarm.advance(self.random.choice([0, 0.5, 2, 6]))

    async def scale(self) -> None:
        replicas = self.random.randrange(0, 9)
        await self.swarm.update_service("web", lambda made: setattr(made.spec.replicated, "replicas", replicas))

    async def update(self) -> None:
        id, number = self.random.choice(["web", "agent"]), self.random.randrange(4)

        def change(made: Service) -> None:
            made.spec.task.container.image = f"app:{number}"
            made.spec.update.parallelism = self.random.randrange(3)
            made.spec.update.delay.seconds = self.random.choice([0, 3])
            made.spec.update.order = self.random.choice([UpdateConfig.STOP_FIRST, UpdateConfig.START_FIRST])

        await self.swarm.update_service(id, change)

    async def node(self) -> None:
        id = self.random.choice(NODES)
        await self.swarm.set_node_state(
            id, self.random.choice([NodeStatus.READY, NodeStatus.DOWN, NodeStatus.DISCONNECTED])
        )
        await self.swarm.set_availability(
            id,
            self.random.choice(
                [NodeSpec.Availability.ACTIVE, NodeSpec.Availability.DRAIN, NodeSpec.Availability.PAUSE]
            ),
        )

    async def failures(self) -> None:
        unlucky = self.random.choice("0123456789abcdefghij")
        self.swarm.fleet.fails = lambda task: unlucky in task.id[:2]

    async def leader(self) -> None:
        await self.swarm.stop()
        self.swarm.start()

    async def end(self) -> None:
        self.swarm.fleet.fails = lambda task: False
        for id in NODES:
            await self.swarm.set_node_state(id, NodeStatus.READY)
            await self.swarm.set_availability(id, NodeSpec.Availability.ACTIVE)


@pytest.mark.parametrize("seed", range(6))
async def test_left_in_peace_it_ends_as_the_services_ask(seed: int) -> None:
    async with running_swarm(make, NODES) as swarm:
        swarm.fleet.allocates = False
        await swarm.create_service(service("web", is_global=False))
        await swarm.create_service(service("agent", is_global=True))
        chaos = Chaos(swarm, Random(seed))

        for _ in range(25):
            await chaos.happen()
        await chaos.end()
        await swarm.advance(120, step=1)

        web, agent = swarm.service("web"), swarm.service("agent")
        slots = [task.slot for task in swarm.running("web")]
        assert len(slots) == len(set(slots)) == web.spec.replicated.replicas
        assert len(swarm.wanted("web")) == len(slots)
        assert {task.spec.container.image for task in swarm.running("web")} <= {web.spec.task.container.image}
        assert sorted(task.node_id for task in swarm.wanted("agent")) == sorted(NODES)
        assert {task.spec.container.image for task in swarm.running("agent")} == {agent.spec.task.container.image}
        assert len(swarm.tasks("web")) <= 5 * max(1, len(slots))
        for made in (web, agent):
            assert swarm.update_state(made.id) in ("UNKNOWN", "COMPLETED")

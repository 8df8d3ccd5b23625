"""Whatever happens in whatever order, a whole cluster that is left in peace is what its operator asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from types import MappingProxyType

import pytest
from swarmcore_constraint_filter import ConstraintFilter
from swarmcore_node_filters import swarmcore_scheduler_filters
from swarmcore_restart_policies.policies import DefaultPolicy
from swarmcore_spread_scheduler import SpreadStrategy

from swarmcore.api.control_pb2 import (
    CreateServiceRequest,
    RemoveNodeRequest,
    RemoveServiceRequest,
    RemoveTaskRequest,
    UpdateNodeRequest,
    UpdateServiceRequest,
)
from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec, ServiceSpec
from swarmcore.api.types_pb2 import (
    NodeDescription,
    NodeStatus,
    PortConfig,
    RestartPolicy,
    TaskState,
    UpdateConfig,
    UpdateStatus,
    Version,
)
from swarmcore.errors import SequenceConflictError
from swarmcore.plugin.constraints import node_matches, parse
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.whole_cluster import Machine, WholeCluster, whole_cluster

PLUGINS = PluginSet(
    number=1,
    filters=tuple(sorted([ConstraintFilter(), *swarmcore_scheduler_filters()], key=lambda each: each.order)),
    strategies=MappingProxyType({"spread": SpreadStrategy()}),
    restart_policies=MappingProxyType({"default": DefaultPolicy()}),
)
CPU = 1_000_000_000
CPUS = 4
ZONES = ("a", "b")
MODES = ("replicated", "replicated", "replicated", "global", "replicated_job", "global_job")
MAX_SERVICES = 6
RETENTION = 5
GOING_ON = (UpdateStatus.UPDATING, UpdateStatus.ROLLBACK_STARTED)


def is_job(service: Service) -> bool:
    return service.spec.WhichOneof("mode") in ("replicated_job", "global_job")


class History:
    """Things that happen to a cluster, chosen by a seed."""

    def __init__(self, cluster: WholeCluster, random: Random) -> None:
        self.cluster = cluster
        self.random = random
        self.made = 0
        self.log: list[str] = []
        self.down: dict[str, Machine] = {}
        """Machines whose agent is stopped."""

    # What there is

    def services(self) -> list[Service]:
        return list(self.cluster.store.view.service.all())

    def nodes(self) -> list[Node]:
        return list(self.cluster.store.view.node.all())

    def tasks(self, service_id: str) -> list[Task]:
        return list(self.cluster.store.view.task.by("service", service_id))

    # What happens

    async def happen(self) -> None:
        happening = self.random.choice(
            [
                self.create,
                self.scale,
                self.scale,
                self.update,
                self.update,
                self.roll_back,
                self.remove,
                self.availability,
                self.availability,
                self.label,
                self.cut,
                self.mend,
                self.restart_agent,
                self.crash,
                self.leave,
                self.join,
                self.fail,
                self.fail,
                self.remove_task,
                self.lead,
            ]
        )
        self.log.append(f"{self.cluster.clock.monotonic():.1f} {happening.__name__}")
        await happening()
        await self.pass_time(self.random.choice([0.0, 0.0, 0.3, 1.0, 3.0, 10.0, 30.0]))

    async def pass_time(self, seconds: float) -> None:
        """Let time pass; what jobs run completes at once."""
        await self.cluster.settle()
        self.check_always()
        while seconds > 0:
            await self.cluster.clock.advance(min(1.0, seconds))
            await self.cluster.settle()
            self.finish_jobs()
            await self.cluster.settle()
            self.check_always()
            seconds -= 1.0

    def finish_jobs(self) -> None:
        view = self.cluster.store.view
        for machine in self.cluster.machines.values():
            for id in sorted(machine.running):
                task = view.task.get(id)
                if task is not None and task.HasField("job_iteration"):
                    machine.executor.engine.end(id, 0 if self.random.random() < 0.9 else 1)

    def spec(self) -> ServiceSpec:
        random = self.random
        spec = ServiceSpec()
        self.made += 1
        spec.annotations.name = f"s{self.made}"
        spec.task.container.image = f"app:{random.randrange(3)}"
        spec.task.restart.condition = random.choice([RestartPolicy.ANY, RestartPolicy.ANY, RestartPolicy.ON_FAILURE])
        spec.task.restart.delay.seconds = random.choice([0, 1, 7])
        if random.random() < 0.5:
            spec.task.resources.reservations.nano_cpus = random.choice([CPU // 2, CPU, 3 * CPU])
            spec.task.resources.reservations.memory_bytes = 8 << 20
        if random.random() < 0.3:
            spec.task.placement.constraints.append(f"node.labels.zone == {random.choice(ZONES)}")
        if random.random() < 0.2:
            spec.task.placement.max_replicas = 2
        if random.random() < 0.2:
            spec.endpoint.ports.add(
                target_port=80, published_port=random.choice([80, 81]), publish_mode=PortConfig.HOST
            )
        mode = random.choice(MODES)
        if mode == "replicated":
            spec.replicated.replicas = random.randrange(6)
        elif mode == "replicated_job":
            spec.replicated_job.max_concurrent, spec.replicated_job.total_completions = 2, random.randrange(1, 6)
        else:
            getattr(spec, mode).SetInParent()
        if mode in ("replicated", "global"):
            self.plan_update(spec)
        return spec

    def plan_update(self, spec: ServiceSpec) -> None:
        random = self.random
        for config in (spec.update, spec.rollback):
            config.parallelism = random.randrange(3)
            config.delay.seconds = random.choice([0, 0, 4])
            config.monitor.seconds = random.choice([1, 5])
            config.order = random.choice([UpdateConfig.STOP_FIRST, UpdateConfig.START_FIRST])
            config.failure_action = random.choice([UpdateConfig.PAUSE, UpdateConfig.CONTINUE])
            config.max_failure_ratio = random.choice([0.0, 0.5])
        if random.random() < 0.4:
            spec.update.failure_action = UpdateConfig.ROLLBACK

    async def create(self) -> None:
        if len(self.services()) < MAX_SERVICES:
            await self.cluster.control.CreateService(CreateServiceRequest(spec=self.spec()), None)

    async def change(self, service: Service, how: Callable[[ServiceSpec], object], *, back: bool = False) -> None:
        while (now := self.cluster.store.view.service.get(service.id)) is not None:
            request = UpdateServiceRequest(service_id=now.id, service_version=Version(index=now.meta.version.index))
            request.spec.CopyFrom(now.spec)
            how(request.spec)
            if back:
                request.rollback = UpdateServiceRequest.PREVIOUS
            try:
                await self.cluster.control.UpdateService(request, None)
            except SequenceConflictError:
                continue
            return

    async def scale(self) -> None:
        services = [service for service in self.services() if service.spec.WhichOneof("mode") == "replicated"]
        if services:
            replicas = self.random.randrange(8)
            await self.change(self.random.choice(services), lambda spec: setattr(spec.replicated, "replicas", replicas))

    async def update(self) -> None:
        if not self.services():
            return
        service = self.random.choice(self.services())
        image, cpus = f"app:{self.random.randrange(3)}", self.random.choice([0, CPU // 2, CPU])

        def how(spec: ServiceSpec) -> None:
            spec.task.container.image = image
            if self.random.random() < 0.3:
                spec.task.resources.reservations.nano_cpus = cpus
            if not is_job(service):
                self.plan_update(spec)

        await self.change(service, how)

    async def roll_back(self) -> None:
        services = [service for service in self.services() if service.HasField("previous_spec")]
        if services:
            await self.change(self.random.choice(services), lambda spec: None, back=True)

    async def remove(self) -> None:
        if self.services() and self.random.random() < 0.5:
            service = self.random.choice(self.services())
            await self.cluster.control.RemoveService(RemoveServiceRequest(service_id=service.id), None)

    async def change_node(self, node: Node, how: Callable[[NodeSpec], object]) -> None:
        while (now := self.cluster.store.view.node.get(node.id)) is not None:
            request = UpdateNodeRequest(node_id=now.id, node_version=Version(index=now.meta.version.index))
            request.spec.CopyFrom(now.spec)
            how(request.spec)
            try:
                await self.cluster.control.UpdateNode(request, None)
            except SequenceConflictError:
                continue
            return

    async def availability(self) -> None:
        wanted = self.random.choice([NodeSpec.ACTIVE, NodeSpec.DRAIN, NodeSpec.PAUSE])
        if self.nodes():
            await self.change_node(self.random.choice(self.nodes()), lambda spec: setattr(spec, "availability", wanted))

    async def label(self) -> None:
        zone = self.random.choice(ZONES)
        if self.nodes():
            await self.change_node(
                self.random.choice(self.nodes()), lambda spec: spec.annotations.labels.update(zone=zone)
            )

    async def cut(self) -> None:
        if self.cluster.machines:
            self.random.choice(list(self.cluster.machines.values())).cut()

    async def mend(self) -> None:
        for machine in self.cluster.machines.values():
            machine.mend()

    async def restart_agent(self) -> None:
        """The agent starts anew beside an engine that went on."""
        if self.cluster.machines:
            machine = self.random.choice(list(self.cluster.machines.values()))
            await machine.stop()
            machine.start()

    async def crash(self) -> None:
        """The whole machine starts anew: nothing runs on its engine."""
        if self.cluster.machines:
            machine = self.random.choice(list(self.cluster.machines.values()))
            await machine.stop()
            for id in sorted(machine.running):
                machine.executor.engine.end(id, 137)
            machine.start()

    async def leave(self) -> None:
        """A machine goes for good."""
        if len(self.cluster.machines) > 2 and self.random.random() < 0.5:
            id = self.random.choice(list(self.cluster.machines))
            machine = self.cluster.machines.pop(id)
            await machine.stop()
            await self.cluster.control.RemoveNode(RemoveNodeRequest(node_id=id, force=True), None)

    async def join(self) -> None:
        if len(self.cluster.machines) < 6:
            await self.add_machine()

    async def add_machine(self) -> None:
        self.made += 1
        description = NodeDescription()
        description.resources.nano_cpus = CPUS * CPU
        description.resources.memory_bytes = 1 << 30
        await self.cluster.add_machine(f"node{self.made}", description)

    async def fail(self) -> None:
        """Something that runs ends by itself."""
        running = [(machine, id) for machine in self.cluster.machines.values() for id in sorted(machine.running)]
        for machine, id in self.random.sample(running, min(len(running), self.random.randrange(4))):
            machine.executor.engine.end(id, self.random.choice([0, 1, 1]))

    async def remove_task(self) -> None:
        tasks = list(self.cluster.store.view.task.all())
        if tasks:
            await self.cluster.control.RemoveTask(RemoveTaskRequest(task_id=self.random.choice(tasks).id), None)

    async def lead(self) -> None:
        await self.cluster.lead()

    async def peace(self) -> None:
        """Everything is repaired, and nothing more happens."""
        for machine in self.cluster.machines.values():
            machine.mend()
        for node in self.nodes():
            await self.change_node(node, lambda spec: setattr(spec, "availability", NodeSpec.ACTIVE))
        await self.pass_time(180)
        for service in self.services():
            if service.update_status.state in (UpdateStatus.PAUSED, UpdateStatus.ROLLBACK_PAUSED):
                await self.change(service, lambda spec: setattr(spec.task, "force_update", spec.task.force_update + 1))
        await self.pass_time(300)

    # What must hold

    def check_always(self) -> None:
        """At every moment: no node is promised more than it has, and no host port twice."""
        view = self.cluster.store.view
        for node in view.node.all():
            tasks = [
                task
                for task in view.task.by("node", node.id)
                if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
            ]
            assert sum(task.spec.resources.reservations.nano_cpus for task in tasks) <= CPUS * CPU, self.story()
            ports = Counter(port.published_port for task in tasks for port in task.endpoint.ports)
            assert all(count == 1 for count in ports.values()), self.story()

    def check_end(self) -> None:
        view = self.cluster.store.view
        assert all(node.status.state == NodeStatus.READY for node in view.node.all()), self.story()
        assert set(node.id for node in view.node.all()) == set(self.cluster.machines), self.story()
        for task in view.task.all():
            assert task.service_id in view.service, self.story(task)
            assert task.status.state not in (TaskState.NEW, TaskState.ASSIGNED, TaskState.STARTING), self.story(task)
            if task.status.state == TaskState.PENDING:
                assert task.status.err and task.desired_state <= TaskState.COMPLETE, self.story(task)
                assert not any(self.fits(task, node) for node in view.node.all()), self.story(task)
            if task.status.state == TaskState.RUNNING:
                assert task.desired_state == TaskState.RUNNING, self.story(task)
        for service in view.service.all():
            self.check_service(service)
        for machine in self.cluster.machines.values():
            assert machine.running == self.cluster.live_on(machine.id), self.story(machine.id)

    def fits(self, task: Task, node: Node) -> bool:
        """Whether a task that waits could run on a node, told without the scheduler."""
        there = [
            other
            for other in self.cluster.store.view.task.by("node", node.id)
            if TaskState.ASSIGNED <= other.status.state <= TaskState.RUNNING
        ]
        free = CPUS * CPU - sum(other.spec.resources.reservations.nano_cpus for other in there)
        published = {port.published_port for other in there for port in other.endpoint.ports}
        siblings = sum(
            other.service_id == task.service_id and other.desired_state <= TaskState.COMPLETE for other in there
        )
        return (
            task.node_id in ("", node.id)
            and node_matches(node, parse(task.spec.placement.constraints))
            and task.spec.resources.reservations.nano_cpus <= free
            and not any(port.published_port in published for port in task.endpoint.ports)
            and siblings < (task.spec.placement.max_replicas or siblings + 1)
        )

    def check_service(self, service: Service) -> None:
        tasks = self.tasks(service.id)
        wanted = [task for task in tasks if task.desired_state <= TaskState.RUNNING]
        if any(task.status.state == TaskState.PENDING for task in wanted) and service.update_status.state in GOING_ON:
            # Nothing fits, and it says so: the update waits for that, with old tasks beside new ones.
            return
        slots = Counter(task.slot or task.node_id for task in wanted)
        assert not slots or max(slots.values()) == 1, self.story(service)
        everywhere = {
            node.id: node for node in self.nodes() if node_matches(node, parse(service.spec.task.placement.constraints))
        }
        history = Counter(task.slot or task.node_id for task in tasks)
        assert not history or max(history.values()) <= RETENTION + is_job(service), self.story(service)
        match service.spec.WhichOneof("mode"):
            case "replicated":
                self.check_wanted(service, wanted, set(range(1, 1 + service.spec.replicated.replicas)), exact=False)
            case "global":
                self.check_wanted(service, wanted, set(everywhere), exact=True)
            case _:
                self.check_job(service, tasks, len(everywhere))

    def check_wanted(self, service: Service, wanted: list[Task], expected: set[int] | set[str], *, exact: bool) -> None:
        # A service that is restarted on failure only keeps what completed.
        over = {
            task.slot or task.node_id
            for task in self.tasks(service.id)
            if task.status.state == TaskState.COMPLETE
            and service.spec.task.restart.condition == RestartPolicy.ON_FAILURE
        }
        slots = {task.slot or task.node_id for task in wanted}
        if exact:
            assert slots <= expected <= slots | over, self.story(service)
        else:
            assert len(slots) <= len(expected) <= len(slots | over), self.story(service)
        for task in wanted:
            assert task.status.state in (TaskState.RUNNING, TaskState.PENDING), self.story(service, task)
            current = (service.spec.task.container.image, service.spec.task.resources)
            assert (task.spec.container.image, task.spec.resources) == current, self.story(service, task)
        if all(task.status.state == TaskState.RUNNING for task in wanted):
            assert service.update_status.state in (
                UpdateStatus.UNKNOWN,
                UpdateStatus.COMPLETED,
                UpdateStatus.ROLLBACK_COMPLETED,
            ), self.story(service)

    def check_job(self, service: Service, tasks: list[Task], nodes: int) -> None:
        iteration = service.job_status.job_iteration.index
        current = [task for task in tasks if task.job_iteration.index == iteration]
        waiting = [task for task in current if task.status.state == TaskState.PENDING]
        done = {task.slot or task.node_id for task in current if task.status.state == TaskState.COMPLETE}
        total = service.spec.replicated_job.total_completions or nodes
        assert waiting or len(done) >= total, self.story(service)

    def story(self, *about: object) -> str:
        """What happened, and what `about` is now, for whoever has to find out why."""
        lines = [*self.log]
        for each in about:
            if isinstance(each, Service):
                lines += ["", str(each), *(self.tell(task) for task in self.tasks(each.id))]
            else:
                lines += ["", self.tell(each) if isinstance(each, Task) else str(each)]
        return "\n".join(lines)

    @staticmethod
    def tell(task: Task) -> str:
        states = f"{TaskState.Name(task.status.state)} wanted {TaskState.Name(task.desired_state)}"
        when = f"made {task.meta.created_at.ToSeconds() - 1_700_000_000 + 1000} on version {task.spec_version.index}"
        return f"{task.id} slot {task.slot} node {task.node_id}: {states}, {when}, {task.status.err!r}"


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 7])
async def test_left_in_peace_a_cluster_is_what_was_asked_for(seed: int) -> None:
    async with whole_cluster(PLUGINS) as cluster:
        history = History(cluster, Random(seed))
        for _ in range(3):
            await history.add_machine()
        await history.create()
        await history.pass_time(2)

        for _ in range(40):
            await history.happen()
        await history.peace()

        history.check_end()

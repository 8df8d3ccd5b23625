"""Properties of the pure planners: they settle, they ask for nothing twice, they leave alone what is right."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from swarmcore_restart_policies.policies import DefaultPolicy

from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, RestartPolicy, TaskState, UpdateConfig, UpdateStatus
from swarmcore.orchestrator.actions import Action, CreateTask, carry_out
from swarmcore.orchestrator.planner import Moment, World
from swarmcore.orchestrator.services import plan, planner_for
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.store.store import Store
from swarmcore.store.tables import SCHEMAS
from swarmcore.store.transaction import Transaction
from swarmcore.testing.fleet import Fleet

POLICIES = PluginSet(restart_policies=MappingProxyType({"default": DefaultPolicy()}))
START = 1_700_000_000.0


class Ledger:
    """A store that is written without an event loop."""

    def __init__(self) -> None:
        self.store = Store(checked=True)
        self.seconds = 0.0
        self.fleet = Fleet()
        self._ids = 0
        self.world = World(nodes=self.store.view.node, cluster=lambda: None, new_id=self._new_id)

    def _new_id(self) -> str:
        self._ids += 1
        return f"task{self._ids}"

    @property
    def moment(self) -> Moment:
        return Moment(now=START + self.seconds, monotonic=self.seconds, plugins=POLICIES)

    @property
    def stamp(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromNanoseconds(int((START + self.seconds) * 1e9))
        return stamp

    @property
    def service(self) -> Service:
        service = self.store.view.service.get("web")
        assert service is not None
        return service

    @property
    def tasks(self) -> list[Task]:
        return list(self.store.view.task.all())

    @property
    def wanted(self) -> list[Task]:
        return [task for task in self.tasks if task.desired_state <= TaskState.RUNNING]

    def begin(self) -> Transaction:
        tables = {schema.table: self.store.view.table(schema.table) for schema in SCHEMAS}
        return Transaction(tables, self.store.version + 1, self.stamp)  # type: ignore[arg-type]

    def commit(self, tx: Transaction) -> None:
        self.store.apply(tx.version, tx.outcome()[1])

    def put(self, *objects: Service | Node | Task) -> None:
        tx = self.begin()
        for obj in objects:
            tx.table(type(obj).__name__.lower()).create(obj)
        self.commit(tx)

    def carry_out(self, actions: Iterable[Action]) -> None:
        tx = self.begin()
        for action in actions:
            carry_out(tx, action, self.stamp)
        self.commit(tx)

    def move(self) -> int:
        tx = self.begin()
        moved = self.fleet.step(tx, self.stamp)
        self.commit(tx)
        return moved

    def settle(self, rounds: int = 200) -> None:
        """Plan from nothing each time, carry out, and let the fleet and time go on, until nothing changes."""
        for _ in range(rounds):
            actions = plan(self.service, self.tasks, world=self.world, moment=self.moment)
            self.carry_out(actions)
            if not actions and not self.move():
                return
            self.seconds += 1.0
        raise AssertionError("it does not settle")


def service_of(replicas: int) -> Service:
    service = Service(id="web")
    service.spec.annotations.name = "web"
    service.spec.replicated.replicas = replicas
    service.spec.task.container.image = "redis:1"
    service.spec_version.index = 5
    service.spec.task.restart.condition = RestartPolicy.ANY
    service.spec.task.restart.delay.seconds = 1
    service.spec.update.parallelism = 2
    service.spec.update.monitor.seconds = 1
    return service


def node_of(id: str, state: NodeStatus.State.ValueType, availability: NodeSpec.Availability.ValueType) -> Node:
    node = Node(id=id)
    node.status.state = state
    node.spec.availability = availability
    node.spec.membership = NodeSpec.Membership.ACCEPTED
    return node


def usual_nodes() -> list[Node]:
    return [node_of(id, NodeStatus.READY, NodeSpec.Availability.ACTIVE) for id in ("n1", "n2", "n3")]


task_states = st.sampled_from(
    [TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN]
)
desired_states = st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE])


@st.composite
def some_tasks(draw: st.DrawFn, service: Service) -> list[Task]:
    """Tasks in whatever states, of this spec and of others, several in a slot."""
    tasks = []
    for number in range(draw(st.integers(0, 12))):
        state = draw(task_states)
        task = Task(id=f"old{number:02}", service_id="web", slot=draw(st.integers(1, 6)))
        task.desired_state = draw(desired_states)
        task.status.state = state
        if state >= TaskState.ASSIGNED:
            task.node_id = draw(st.sampled_from(["n1", "n2", "n3", "gone"]))
        task.spec.CopyFrom(service.spec.task)
        task.spec_version.index = 5
        if draw(st.booleans()):
            task.spec.container.image = "redis:0"
            task.spec_version.index = 3
        task.status.timestamp.FromSeconds(int(START) - draw(st.integers(0, 100)))
        task.endpoint.SetInParent()
        tasks.append(task)
    return tasks


@given(st.data(), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_whatever_there_was_it_settles_and_is_what_the_service_asks_for(data: st.DataObject, replicas: int) -> None:
    ledger = Ledger()
    service = service_of(replicas)
    ledger.put(service, *usual_nodes(), *data.draw(some_tasks(service)))

    ledger.settle()

    wanted = ledger.wanted
    assert len({task.slot for task in wanted}) == len(wanted) == replicas
    assert {task.status.state for task in wanted} <= {TaskState.RUNNING}
    assert {task.spec.container.image for task in wanted} <= {"redis:1"}
    assert plan(ledger.service, ledger.tasks, world=ledger.world, moment=ledger.moment) == []


@given(st.data(), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_one_planner_that_is_fed_settles_as_one_made_anew(data: st.DataObject, replicas: int) -> None:
    ledger = Ledger()
    service = service_of(replicas)
    ledger.put(service, *usual_nodes(), *data.draw(some_tasks(service)))
    planner = planner_for(ledger.service, ledger.world)
    known: dict[str, Task] = {}

    for _ in range(300):
        current = {task.id: task for task in ledger.tasks}
        for id, task in known.items():
            if id not in current:
                planner.remove(task)
        for id, task in current.items():
            if known.get(id) is not task:
                planner.put(task)
        if planner.service is not ledger.service:
            planner.set_service(ledger.service)
        known = current
        actions = planner.plan(ledger.moment)
        ledger.carry_out(actions)
        if not actions and not ledger.move() and not planner.has_work:
            wake = planner.next_wake
            if wake is None:
                break
            ledger.seconds = max(ledger.seconds, wake)

    assert len({task.slot for task in ledger.wanted}) == len(ledger.wanted) == replicas
    assert {task.spec.container.image for task in ledger.wanted} <= {"redis:1"}
    assert plan(ledger.service, ledger.tasks, world=ledger.world, moment=ledger.moment) == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_rollback_leaves_alone_what_is_on_the_spec_already(data: st.DataObject) -> None:
    ledger = Ledger()
    service = service_of(6)
    service.spec.update.order = data.draw(st.sampled_from([UpdateConfig.STOP_FIRST, UpdateConfig.START_FIRST]))
    service.update_status.state = UpdateStatus.ROLLBACK_STARTED
    tasks = []
    for slot in range(1, 7):
        kinds = data.draw(st.sampled_from([["redis:1"], ["redis:2"], ["redis:1", "redis:2"]]))
        for image in kinds:
            task = Task(id=f"{image}-{slot}", service_id="web", slot=slot, node_id="n1")
            task.desired_state = task.status.state = TaskState.RUNNING
            task.spec.CopyFrom(service.spec.task)
            task.spec.container.image = image
            task.spec_version.index = 5 if image == "redis:1" else 9
            task.endpoint.SetInParent()
            tasks.append(task)
    healthy = {task.id for task in tasks if task.spec.container.image == "redis:1"}
    ledger.put(service, *usual_nodes(), *tasks)

    ledger.settle()

    assert healthy <= {task.id for task in ledger.wanted}
    assert {task.spec.container.image for task in ledger.wanted} == {"redis:1"}
    assert len(ledger.wanted) == 6


@pytest.mark.parametrize("replicas", [0, 1, 3, 2500])
def test_creating_takes_the_lowest_free_slots(replicas: int) -> None:
    ledger = Ledger()
    ledger.put(service_of(replicas), *usual_nodes())
    planner = planner_for(ledger.service, ledger.world)
    made: list[int] = []

    while planner.has_work:
        actions = planner.plan(ledger.moment)
        made.extend(action.slot for action in actions if isinstance(action, CreateTask))
        ledger.carry_out(actions)
        for task in ledger.tasks[len(made) - len(actions) :]:
            planner.put(task)

    assert made == list(range(1, replicas + 1))


def test_a_gap_is_filled_first() -> None:
    ledger = Ledger()
    ledger.put(service_of(4), *usual_nodes())
    ledger.settle()
    gone = next(task for task in ledger.tasks if task.slot == 2)
    tx = ledger.begin()
    tx.task.delete(gone.id)
    ledger.commit(tx)

    actions = plan(ledger.service, ledger.tasks, world=ledger.world, moment=ledger.moment)

    assert [action.slot for action in actions if isinstance(action, CreateTask)] == [2]


def test_a_report_that_a_healthy_task_runs_needs_no_plan() -> None:
    ledger = Ledger()
    ledger.put(service_of(1), *usual_nodes())
    planner = planner_for(ledger.service, ledger.world)
    ledger.carry_out(planner.plan(ledger.moment))
    planner.put(ledger.tasks[0])
    planner.plan(ledger.moment)

    while ledger.move():
        planner.put(ledger.tasks[0])

    assert ledger.tasks[0].status.state == TaskState.RUNNING
    assert not planner.has_work


def test_nothing_is_written_for_a_service_that_changed_meanwhile() -> None:
    ledger = Ledger()
    ledger.put(service_of(2), *usual_nodes())
    actions = plan(ledger.service, ledger.tasks, world=ledger.world, moment=ledger.moment)
    tx = ledger.begin()
    changed = Service()
    changed.CopyFrom(ledger.service)
    changed.spec_version.index = 8
    tx.service.update(changed)
    ledger.commit(tx)

    ledger.carry_out(actions)

    assert ledger.tasks == []

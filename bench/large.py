"""A cluster of many tasks that nobody has to start: they are written into a leader's store, as running."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from swarmcore.api.objects_pb2 import Cluster, Node, Service, Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole, NodeStatus, TaskState
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction

TASKS = 100_000
TASKS_PER_SERVICE = 1_000
NODES = 1_000
HEARTBEAT_SECONDS = 3_600
"""The nodes are not there: nobody may take them for down, and their tasks for lost, while something is measured."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


async def fill(store: Store, tasks: int = TASKS) -> None:
    """Write nodes, services and their tasks, as a cluster has them in which all is well."""
    await store.update(_be_patient)
    nodes = [_node(number) for number in range(NODES)]
    await _create_nodes(store, nodes)
    for number in range(max(1, tasks // TASKS_PER_SERVICE)):
        service = _service(number, min(TASKS_PER_SERVICE, tasks))
        places = [nodes[(slot * 7 + number) % NODES].id for slot in range(service.spec.replicated.replicas)]
        await store.update(partial(_create_service, service=service, places=places))


def _create_service(tx: Transaction, service: Service, places: Sequence[str]) -> None:
    # Together: tasks without their service would be removed, and a service without its tasks would be given some.
    tx.service.create(service)
    for slot, node_id in enumerate(places, 1):
        tx.task.create(_task(service, slot, node_id))


async def _create_nodes(store: Store, nodes: Sequence[Node]) -> None:
    errors = await store.batch(nodes, lambda tx, node: tx.node.create(node))
    for error in errors:
        if error is not None:
            raise error


def _be_patient(tx: Transaction) -> None:
    for old in list(tx.cluster.all()):
        cluster = Cluster()
        cluster.CopyFrom(old)
        cluster.spec.dispatcher.heartbeat_period.FromSeconds(HEARTBEAT_SECONDS)
        tx.cluster.update(cluster)


def _id(kind: str, number: int) -> str:
    """25 characters, as all ids are."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return kind + digits.rjust(25 - len(kind), "0")


def _node(number: int) -> Node:
    node = Node(id=_id("node", number), role=NodeRole.WORKER)
    node.spec.desired_role = NodeRole.WORKER
    node.spec.availability = NodeSpec.ACTIVE
    node.spec.membership = NodeSpec.ACCEPTED
    node.status.state = NodeStatus.READY
    node.status.addr = f"10.{number // 250}.0.{number % 250 + 1}"
    node.description.hostname = f"large-{number}"
    node.description.platform.os = "linux"
    node.description.platform.architecture = "x86_64"
    node.description.resources.nano_cpus = 64 * 10**9
    node.description.resources.memory_bytes = 256 * 2**30
    return node


def _service(number: int, replicas: int) -> Service:
    service = Service(id=_id("service", number))
    service.spec.annotations.name = f"large-{number}"
    service.spec.annotations.labels["com.example.team"] = "measurements"
    container = service.spec.task.container
    container.image = "registry.example.com/large/web:1.2.3"
    container.command.extend(("/usr/bin/web", "--listen", ":8080"))
    container.env.extend((f"SHARD={number}", "LOG_LEVEL=info"))
    service.spec.task.resources.reservations.nano_cpus = 10**7
    service.spec.replicated.replicas = replicas
    service.spec_version.index = 1
    return service


def _task(service: Service, slot: int, node_id: str) -> Task:
    task = Task(
        id=_id("task", int(service.spec.annotations.name.rpartition("-")[2]) * TASKS_PER_SERVICE + slot),
        service_id=service.id,
        slot=slot,
        node_id=node_id,
        desired_state=TaskState.RUNNING,
    )
    task.spec.CopyFrom(service.spec.task)
    task.service_annotations.CopyFrom(service.spec.annotations)
    task.spec_version.CopyFrom(service.spec_version)
    task.annotations.name = f"{service.spec.annotations.name}.{slot}.{task.id}"
    task.status.state = TaskState.RUNNING
    task.status.timestamp.FromSeconds(1_700_000_000)
    task.status.applied_by = node_id
    task.status.message = "started"
    task.status.container.container_id = (task.id * 3)[:64]
    task.status.container.pid = 1000 + slot
    return task

"""Metrics as Prometheus reads them."""

from __future__ import annotations

from swarmcore.api.objects_pb2 import Node, Secret, Service, Task
from swarmcore.api.types_pb2 import NodeStatus, TaskState, TaskStatus
from swarmcore.manager.metrics import SLICE, fitness_metrics, manager_metrics, node_metrics
from swarmcore.replication.watchdog import WriteTimes
from swarmcore.store.transaction import Transaction
from swarmcore.testing.store import running_store


def values(text: str) -> dict[str, int]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: int(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_objects_are_counted_by_kind_and_state() -> None:
    def write(tx: Transaction) -> None:
        tx.node.create(Node(id="n1", status=NodeStatus(state=NodeStatus.READY)))
        tx.node.create(Node(id="n2", status=NodeStatus(state=NodeStatus.DOWN)))
        tx.service.create(Service(id="s"))
        tx.secret.create(Secret(id="x"))
        for number in range(SLICE + 3):
            state = TaskState.RUNNING if number else TaskState.FAILED
            tx.task.create(Task(id=f"t{number}", status=TaskStatus(state=state)))

    async with running_store() as store:
        empty = values(await manager_metrics(store.view, is_leader=False))
        await store.update(write)
        full = values(await manager_metrics(store.view, is_leader=True))

    assert empty.keys() == full.keys()
    assert set(empty.values()) == {0}
    counted = {name: value for name, value in full.items() if value}
    assert counted == {
        "swarm_manager_leader": 1,
        'swarm_manager_nodes{state="ready"}': 1,
        'swarm_manager_nodes{state="down"}': 1,
        'swarm_manager_tasks_total{state="running"}': SLICE + 2,
        'swarm_manager_tasks_total{state="failed"}': 1,
        "swarm_manager_services_total": 1,
        "swarm_manager_secrets_total": 1,
    }


def test_every_metric_says_what_it_is() -> None:
    text = node_metrics(node_id='a"b', cluster_id="c", is_manager=False)

    assert text.splitlines() == [
        "# HELP swarm_node_info Information related to the swarm.",
        "# TYPE swarm_node_info gauge",
        'swarm_node_info{swarm_id="c",node_id="a\\"b"} 1',
        "# HELP swarm_node_manager Whether this node is a manager or not.",
        "# TYPE swarm_node_manager gauge",
        "swarm_node_manager 0",
    ]


def test_the_times_of_the_disk_are_a_histogram() -> None:
    times = WriteTimes(slow_seconds=9.0, where="/raft")
    for seconds in (0.0005, 0.003, 20.0):
        times.took(seconds, now=0.0)

    lines = fitness_metrics(times, is_fit=False, loop_blocks=2).splitlines()

    assert 'swarm_raft_log_write_seconds_bucket{le="0.004"} 2' in lines
    assert 'swarm_raft_log_write_seconds_bucket{le="+Inf"} 3' in lines
    assert "swarm_raft_log_write_seconds_count 3" in lines
    assert "swarm_manager_fit 0" in lines
    assert "swarm_manager_loop_blocks_total 2" in lines

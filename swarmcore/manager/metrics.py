"""What a node tells Prometheus of itself and, on a manager, of the cluster (SwarmKit: 13.2, without its timers).

Counted when it is asked for: nothing is kept up to date for a scraper that may not be there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.replication.watchdog import WriteTimes
from swarmcore.store.store import View

SLICE = 5_000
"""Tasks counted before the loop goes on to others: about a millisecond."""
_COUNTED = ("service", "network", "secret", "config")

Samples = Mapping[tuple[tuple[str, str], ...], int]
"""Values by their labels."""


def node_metrics(*, node_id: str, cluster_id: str, is_manager: bool) -> str:
    """What every node says."""
    info = (("swarm_id", cluster_id), ("node_id", node_id))
    return _gauge("swarm_node_info", "Information related to the swarm.", {info: 1}) + _gauge(
        "swarm_node_manager", "Whether this node is a manager or not.", {(): int(is_manager)}
    )


async def manager_metrics(view: View, *, is_leader: bool) -> str:
    """What a manager adds: whether it leads, and how many objects of each kind its store has."""
    tasks = await _task_states(view.task.all())
    lines = [
        _gauge("swarm_manager_leader", "Whether this manager is the leader or not.", {(): int(is_leader)}),
        _gauge("swarm_manager_nodes", "The number of nodes by state.", _node_states(view.node.all())),
        _gauge("swarm_manager_tasks_total", "The number of tasks by observed state.", tasks),
    ]
    lines += [
        _gauge(f"swarm_manager_{kind}s_total", f"The number of {kind}s.", {(): len(view.table(kind))})
        for kind in _COUNTED
    ]
    return "".join(lines)


def fitness_metrics(times: WriteTimes, *, is_fit: bool, loop_blocks: int) -> str:
    """How well this manager could lead: its disk, its loop, and the judgement that comes of both."""
    buckets = [(f"{bound:g}" if bound != float("inf") else "+Inf", count) for bound, count in times.cumulative]
    name = "swarm_raft_log_write_seconds"
    histogram = [
        f"# HELP {name} How long the disk takes to make a write of the log durable.",
        f"# TYPE {name} histogram",
        *(f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in buckets),
        f"{name}_sum {times.total_seconds:.6f}",
        f"{name}_count {buckets[-1][1]}",
    ]
    blocks = "swarm_manager_loop_blocks_total"
    return (
        "\n".join(histogram)
        + "\n"
        + _gauge("swarm_manager_fit", "Whether this manager can do what a leader must.", {(): int(is_fit)})
        + f"# HELP {blocks} How often something blocked the event loop for longer than an election.\n"
        + f"# TYPE {blocks} counter\n{blocks} {loop_blocks}\n"
    )


def _node_states(nodes: Collection[Node]) -> Samples:
    counts = Counter(node.status.state for node in nodes)
    return {(("state", name.lower()),): counts[state] for name, state in NodeStatus.State.items()}


async def _task_states(tasks: Collection[Task]) -> Samples:
    counts: Counter[TaskState.ValueType] = Counter()
    copied = list(tasks)
    for start in range(0, len(copied), SLICE):
        counts.update(task.status.state for task in copied[start : start + SLICE])
        await asyncio.sleep(0)
    return {(("state", name.lower()),): counts[state] for name, state in TaskState.items()}


def _gauge(name: str, help_text: str, samples: Samples) -> str:
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
    for labels, value in samples.items():
        shown = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
        lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""The view stays what a fresh one would be, whatever the order of changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import NodeSpec, TaskSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.scheduler.view import View
from swarmcore.testing.scheduling import make_node, make_task, make_view

IDS = st.sampled_from(["n1", "n2", "n3", "n4"])
NODES = st.builds(
    make_node,
    IDS,
    labels=st.dictionaries(st.sampled_from(["rack", "zone"]), st.sampled_from(["a", "b", "B"]), max_size=2),
    engine_labels=st.dictionaries(st.just("storage"), st.sampled_from(["ssd", "disk"]), max_size=1),
    os=st.sampled_from(["linux", "windows"]),
    architecture=st.sampled_from(["x86_64", "amd64", "aarch64"]),
    plugins=st.lists(st.sampled_from([("Log", "syslog"), ("swarmcore/executor", "process")]), max_size=2, unique=True),
    nano_cpus=st.integers(0, 10),
    availability=st.sampled_from([NodeSpec.ACTIVE, NodeSpec.PAUSE]),
)
SPEC = TaskSpec()
SPEC.resources.reservations.nano_cpus = 2
TASKS = st.builds(
    make_task,
    st.sampled_from(["t1", "t2", "t3", "t4", "t5"]),
    spec=st.just(SPEC),
    service=st.just("web"),
    node=IDS,
    state=st.sampled_from([TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED, TaskState.COMPLETE]),
    desired=st.sampled_from([TaskState.RUNNING, TaskState.SHUTDOWN]),
)


def facts(view: View) -> dict[str, object]:
    """All that a filter can ask about each node, whatever its index."""
    nodes = view.select(view.all)
    by_rack = view.attribute("rack", lambda node: node.node.spec.annotations.labels.get("rack", "").lower())
    return {
        node.id: (
            node.active_tasks,
            node.available_nano_cpus,
            node.service_tasks("web"),
            [
                bool(mask >> node.index & 1)
                for mask in (
                    view.all,
                    view.ready,
                    view.label("rack", "a"),
                    view.label("rack", "B"),
                    view.engine_label("storage", "ssd"),
                    view.platform("linux", "amd64"),
                    view.platform("", "arm64"),
                    view.plugin("Log", "syslog"),
                    view.runtime("process"),
                    view.runtime("container"),
                )
            ],
            next(value for value, mask in by_rack.items() if mask >> node.index & 1),
        )
        for node in nodes
    }


@given(
    steps=st.lists(
        st.one_of(NODES, st.tuples(st.just("remove"), IDS), TASKS, st.tuples(st.just("delete"), st.just("t1"))),
        max_size=40,
    )
)
def test_a_view_kept_up_to_date_says_what_a_fresh_one_says(steps: list[Node | Task | tuple[str, str]]) -> None:
    view = View()
    nodes: dict[str, Node] = {}
    tasks: dict[str, Task] = {}
    for step in steps:
        if isinstance(step, Node):
            view.put_node(step)
            nodes[step.id] = step
        elif isinstance(step, Task):
            known = tasks.get(step.id)
            if known is not None:
                # A task keeps its node for ever, and an end is an end.
                step.node_id = known.node_id
                if known.status.state > TaskState.RUNNING:
                    continue
            view.put_task(step)
            tasks[step.id] = step
        elif step[0] == "remove":
            view.remove_node(step[1])
            nodes.pop(step[1], None)
        else:
            view.remove_task(step[1])
            tasks.pop(step[1], None)
        facts(view)

    live = [task for task in tasks.values() if task.status.state <= TaskState.RUNNING]
    assert facts(view) == facts(make_view(nodes.values(), live))
    assert {placed.id for placed in view.tasks()} == {task.id for task in live}


def test_a_booking_that_is_taken_back_leaves_no_trace() -> None:
    view = make_view([make_node("a", nano_cpus=10, generic={"gpu": ["g1"]})])
    task = make_task("t1", spec=SPEC)
    wanted = task.spec.resources.reservations.generic.add().discrete_resource_spec
    wanted.kind, wanted.value = "gpu", 1
    node = view.node("a")
    assert node is not None
    before = facts(view)

    view.book("t1", "web", node, view.footprint(task))
    assert node.available_generic("gpu") == 0
    view.unbook("t1")

    assert facts(view) == before
    assert node.available_generic("gpu") == 1


def test_a_booking_that_the_store_confirmed_stays() -> None:
    view = make_view([make_node("a", nano_cpus=10)])
    node = view.node("a")
    assert node is not None
    task = make_task("t1", spec=SPEC, node="a", state=TaskState.ASSIGNED)
    view.book("t1", "web", node, view.footprint(task))

    view.put_task(task)
    view.unbook("t1")

    assert node.available_nano_cpus == 8
    assert node.service_tasks("web") == 1

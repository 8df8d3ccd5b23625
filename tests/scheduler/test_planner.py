"""What the thread keeps between rounds, and when it wants the next one."""

from __future__ import annotations

import pytest
from swarmcore_node_filters import swarmcore_scheduler_filters
from swarmcore_spread_scheduler import SpreadStrategy

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.api.specs_pb2 import NodeSpec, TaskSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.scheduler.decision import Assign, Report
from swarmcore.scheduler.intake import Meaning, meaning_of
from swarmcore.scheduler.planner import RETRY_SHARE, Everything, Input, Output, Planner
from swarmcore.store.changes import Change
from swarmcore.testing.scheduling import make_node, make_plugins, make_service, make_task

ALL = make_plugins(filters=swarmcore_scheduler_filters(), strategies=[SpreadStrategy()])
BIG = TaskSpec()
BIG.resources.reservations.nano_cpus = 3_000_000_000

PENDING, ASSIGNED, RUNNING = TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING


class Hands:
    """A planner in the hands of a test."""

    def __init__(self, *nodes: Node, tasks: tuple[Task, ...] = ()) -> None:
        self.now = 100.0
        self.step = 0.0
        self.planner = Planner("spread", self._monotonic)
        self.first = self.round(everything=Everything(nodes=nodes, services=[make_service("web")], tasks=tasks))

    def _monotonic(self) -> float:
        self.now += self.step
        return self.now

    def round(self, *changes: Change, **given: object) -> Output:
        return self.planner.round(Input(plugins=ALL, changes=changes, **given))  # type: ignore[arg-type]


def created(task: Task) -> Change:
    return Change("task", None, task)


def updated(task: Task, **fields: object) -> Change:
    new = Task()
    new.CopyFrom(task)
    for name, value in fields.items():
        if name == "state":
            new.status.state = value  # type: ignore[assignment]
        else:
            setattr(new, name, value)
    return Change("task", task, new)


def test_a_refused_decision_gives_back_what_it_had_booked() -> None:
    hands = Hands(make_node("a"))
    output = hands.round(created(make_task("t1", spec=BIG)))
    [decision] = output.decisions
    assert isinstance(decision, Assign)

    output = hands.round(Change("task", decision.task, None), created(make_task("t2", spec=BIG)), refused=[decision])

    assert [each.task.id for each in output.decisions if isinstance(each, Assign)] == ["t2"]


def test_a_failed_decision_is_made_again() -> None:
    hands = Hands(make_node("a"), make_node("b"))
    [decision] = hands.round(created(make_task("t1", spec=BIG))).decisions
    assert isinstance(decision, Assign)
    drained = make_node(decision.node.id, availability=NodeSpec.DRAIN)

    [again] = hands.round(Change("node", decision.node, drained), failed=[decision]).decisions

    assert isinstance(again, Assign)
    assert again.node.id != decision.node.id


def test_words_that_were_not_written_are_said_again() -> None:
    hands = Hands()
    unwanted = make_task("over", desired=TaskState.SHUTDOWN)
    decisions = hands.round(created(make_task("t1")), created(unwanted)).decisions
    assert len(decisions) == 2

    again = hands.round(failed=decisions).decisions

    assert {(each.task.id, each.state) for each in again if isinstance(each, Report)} == {
        ("over", TaskState.SHUTDOWN),
        ("t1", PENDING),
    }


def test_what_waits_rests_until_something_is_freed() -> None:
    placed = make_task("t1", spec=BIG, node="a", state=RUNNING)
    hands = Hands(make_node("a"), tasks=(placed,))
    waiting = make_task("t2", spec=BIG)
    output = hands.round(created(waiting))
    assert output.is_resting
    assert not output.has_more

    assert hands.round().decisions == output.decisions[1:]
    output = hands.round(updated(placed, state=TaskState.COMPLETE))

    [decision] = output.decisions
    assert isinstance(decision, Assign)
    assert not output.is_resting


def test_writing_the_reason_into_a_task_does_not_wake_its_group() -> None:
    hands = Hands()
    task = make_task("t1")
    [report] = hands.round(created(task)).decisions
    assert isinstance(report, Report)
    told = Task()
    told.CopyFrom(task)
    told.status.err = report.err

    output = hands.round(Change("task", task, told))

    assert output.decisions == []
    assert not output.has_more


def test_a_long_retry_is_followed_by_a_longer_rest() -> None:
    hands = Hands(tasks=(make_task("t1"),))
    hands.step = 1.0
    hands.round(is_resync=True)
    end = hands.now

    output = hands.round(Change("node", None, make_node("a", availability=NodeSpec.DRAIN)))

    assert output.retry_at is not None
    assert output.retry_at >= end + RETRY_SHARE


def test_a_deleted_task_does_not_wait_any_more() -> None:
    hands = Hands()
    task = make_task("t1")
    assert hands.round(created(task)).is_resting

    assert not hands.round(Change("task", task, None)).is_resting


def test_failures_are_remembered_when_the_thread_starts_over() -> None:
    failing = [make_task(f"t{number}", node="a", state=RUNNING) for number in range(5)]
    hands = Hands(make_node("a"), make_node("b"), tasks=tuple(failing))
    hands.round(*(updated(task, state=TaskState.FAILED) for task in failing))

    again = Everything(
        nodes=[make_node("a"), make_node("b")],
        services=[make_service("web")],
        tasks=[make_task("n1"), make_task("n2")],
    )
    decisions = hands.round(everything=again).decisions

    assert [each.node.id for each in decisions if isinstance(each, Assign)] == ["b", "b"]


WAITING = make_task("t1")
PLACED = make_task("t1", node="a", state=ASSIGNED)
ENDED = make_task("t1", node="a", state=TaskState.FAILED)


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        (created(make_task("t1", state=TaskState.NEW)), Meaning.NOTHING),
        (updated(make_task("t1", state=TaskState.NEW), desired_state=TaskState.SHUTDOWN), Meaning.WORK),
        (created(WAITING), Meaning.WORK),
        (Change("task", make_task("t1", state=TaskState.NEW), WAITING), Meaning.WORK),
        (updated(WAITING), Meaning.LATER),
        (updated(WAITING, desired_state=TaskState.SHUTDOWN), Meaning.WORK),
        (Change("task", WAITING, PLACED), Meaning.LATER),
        (updated(PLACED, state=TaskState.PREPARING), Meaning.NOTHING),
        (updated(PLACED, state=RUNNING), Meaning.NOTHING),
        (updated(PLACED, desired_state=TaskState.SHUTDOWN), Meaning.FREED),
        (Change("task", PLACED, ENDED), Meaning.FREED),
        (updated(ENDED, desired_state=TaskState.SHUTDOWN), Meaning.NOTHING),
        (Change("task", PLACED, None), Meaning.FREED),
        (Change("task", make_task("t1", state=TaskState.NEW), None), Meaning.NOTHING),
        (Change("node", None, make_node("a")), Meaning.FREED),
        (Change("service", None, make_service("web")), Meaning.LATER),
        (Change("service", make_service("web"), make_service("web", version=2)), Meaning.WORK),
    ],
)
def test_what_a_change_means(change: Change, meaning: Meaning) -> None:
    assert meaning_of(change) is meaning

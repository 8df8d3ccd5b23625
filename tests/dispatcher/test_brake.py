"""Many nodes lost at once: their tasks are held, until the nodes are back, or somebody says otherwise."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from swarmcore.api.brake import DEFAULT, LABEL, MARK, RELEASED, Brake, is_held, parse_brake
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.dispatcher.brake import CALM_SECONDS, BrakeWatch
from swarmcore.dispatcher.states import DOWN_MESSAGE
from swarmcore.store.tables import SCHEMAS, Table
from swarmcore.testing.clock import let_the_loop_run

# The setting


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("", DEFAULT),
        ("on", DEFAULT),
        ("off", Brake(is_on=False)),
        ("share=30", Brake(share=0.3)),
        ("share=75%, wait=0", Brake(share=0.75, wait_seconds=0.0)),
        ("window=90s,wait=1h30m,nodes=10", Brake(window_seconds=90.0, wait_seconds=5400.0, nodes=10)),
    ],
)
def test_a_setting_names_what_differs_from_the_default(text: str, setting: Brake) -> None:
    assert parse_brake(text) == setting


@pytest.mark.parametrize("setting", [DEFAULT, Brake(is_on=False), Brake(share=0.07, wait_seconds=0.0, nodes=1)])
def test_a_setting_is_read_as_it_is_written(setting: Brake) -> None:
    assert parse_brake(str(setting)) == setting


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("half", "'half' is no setting of the brake"),
        ("share=0", "the brake's share is a whole number from 1 to 99"),
        ("share=50,share=60", "'share=60' is no setting"),
        ("nodes=-1", "the brake's nodes is a whole number"),
        ("wait=soon", "the brake's wait is a duration like"),
        ("window=0", "the brake's window is from 1s to a year"),
        ("wait=99999999h", "the brake's wait is a duration like"),
    ],
)
def test_what_is_no_setting_is_refused_in_one_line(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_brake(text)


# The decision


class Nodes:
    """A table of nodes, of which some go down."""

    def __init__(self, count: int, *, drained: int = 0) -> None:
        self.table: Table[Node] = Table(next(schema for schema in SCHEMAS if schema.table == "node"))
        for number in range(count):
            node = Node(id=f"n{number:02}")
            node.spec.membership = NodeSpec.ACCEPTED
            if number >= count - drained:
                node.spec.availability = NodeSpec.DRAIN
            self.table.put(node)
        self.put(NodeStatus.READY, *self.ids)

    @property
    def ids(self) -> list[str]:
        return sorted(node.id for node in self.table.all())

    def put(self, state: NodeStatus.State.ValueType, *ids: str, message: str = "") -> None:
        for id in ids:
            node = Node()
            node.CopyFrom(self.table.get(id) or Node())
            node.status.state, node.status.message = state, message
            self.table.put(node)

    def lose(self, watch: BrakeWatch, *ids: str, silent: tuple[str, ...] = (), now: float = 0.0) -> set[str]:
        """These are declared down; the ones that are held."""
        held = watch.lost(ids, silent, self.table, DEFAULT, now)
        self.put(NodeStatus.DOWN, *ids, message=DOWN_MESSAGE)
        for id, message in held.items():
            self.put(NodeStatus.DOWN, id, message=message)
        return set(held)


@pytest.mark.parametrize(
    ("nodes", "lost", "is_held"),
    [(2, 1, False), (2, 2, False), (3, 1, False), (3, 2, False), (4, 2, False), (4, 3, True), (5, 3, True),
     (6, 3, False), (6, 4, True), (10, 5, False), (10, 6, True)],
)  # fmt: skip
def test_more_than_half_and_at_least_three_put_it_on(nodes: int, lost: int, is_held: bool) -> None:
    cluster = Nodes(nodes)
    gone = cluster.ids[:lost]

    held = cluster.lose(BrakeWatch([], 0.0), *gone)

    assert held == (set(gone) if is_held else set())


def test_those_that_have_missed_heartbeats_count_with_the_first_that_is_lost() -> None:
    cluster = Nodes(10)
    watch = BrakeWatch([], 0.0)

    first = cluster.lose(watch, "n00", silent=("n01", "n02", "n03", "n04", "n05"))
    later = cluster.lose(watch, "n01", "n02", now=1.0)

    assert (first, later) == ({"n00"}, {"n01", "n02"})


def test_losses_within_the_window_add_up_and_older_ones_do_not() -> None:
    cluster, spread = Nodes(10), Nodes(10)
    watch, slow = BrakeWatch([], 0.0), BrakeWatch([], 0.0)

    within = [cluster.lose(watch, id, now=5.0 * number) for number, id in enumerate(cluster.ids[:6])]
    beyond = [spread.lose(slow, id, now=40.0 * number) for number, id in enumerate(spread.ids[:6])]

    assert within[:5] == [set()] * 5
    assert within[5] == set(cluster.ids[:6])
    assert beyond == [set()] * 6


def test_drained_nodes_count_on_neither_side() -> None:
    cluster = Nodes(10, drained=5)

    assert cluster.lose(BrakeWatch([], 0.0), *cluster.ids[5:]) == set()
    assert cluster.lose(BrakeWatch([], 0.0), *cluster.ids[:3]) == set(cluster.ids[:3])


def test_what_is_held_is_let_go_after_the_waiting_time() -> None:
    cluster = Nodes(4)
    watch = BrakeWatch([], 0.0)
    held = cluster.lose(watch, *cluster.ids[:3])

    early = watch.released(cluster.table, (), DEFAULT, DEFAULT.wait_seconds - 1)
    late = watch.released(cluster.table, (), DEFAULT, DEFAULT.wait_seconds)

    assert (early, set(late), watch.is_on) == ([], held, False)


def test_without_a_waiting_time_it_holds_for_as_long_as_it_takes() -> None:
    cluster = Nodes(4)
    watch = BrakeWatch([], 0.0)
    cluster.lose(watch, *cluster.ids[:3])

    assert watch.released(cluster.table, (), Brake(wait_seconds=0.0), 1e6) == []


def test_switched_off_it_lets_go() -> None:
    cluster = Nodes(4)
    watch = BrakeWatch([], 0.0)
    held = cluster.lose(watch, *cluster.ids[:3])

    assert set(watch.released(cluster.table, (), Brake(is_on=False), 1.0)) == held


def test_when_most_are_back_and_stay_the_rest_are_ordinary_losses() -> None:
    cluster = Nodes(10)
    watch = BrakeWatch([], 0.0)
    cluster.lose(watch, *cluster.ids[:6])

    back = cluster.ids[:4]
    cluster.put(NodeStatus.READY, *back)
    first = watch.released(cluster.table, back, DEFAULT, 10.0)
    then = watch.released(cluster.table, back, DEFAULT, 10.0 + CALM_SECONDS)

    assert (first, then) == ([], ["n04", "n05"])


def test_a_node_that_came_back_is_not_held_when_it_is_lost_again_later() -> None:
    cluster = Nodes(10)
    watch = BrakeWatch([], 0.0)
    cluster.lose(watch, *cluster.ids[:6])
    watch.released(cluster.table, (), DEFAULT, 1.0)
    cluster.put(NodeStatus.READY, *cluster.ids[:6])

    assert watch.released(cluster.table, (), DEFAULT, 2.0) == []
    assert not watch.is_on
    assert cluster.lose(watch, "n00", now=3.0) == set()


def test_the_next_leader_goes_on_with_what_is_held() -> None:
    cluster = Nodes(4)
    held = cluster.lose(BrakeWatch([], 0.0), *cluster.ids[:3])

    heir = BrakeWatch(list(cluster.table.all()), 1000.0)

    assert heir.is_on
    assert heir.released(cluster.table, (), DEFAULT, 1001.0) == []
    assert set(heir.released(cluster.table, (), DEFAULT, 1000.0 + DEFAULT.wait_seconds)) == held


# With the dispatcher


async def lose_all_but(world: Any, staying: list[Any]) -> None:
    """Time passes; only these send heartbeats."""
    for _ in range(25):
        await world.clock.advance(1.0)
        for agent in staying:
            await agent.beat()
        await let_the_loop_run()


async def test_most_nodes_gone_at_once_are_held_and_said(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "swarmcore.dispatcher")
    ids = [f"n{number}" for number in range(6)]
    await world.add_nodes(*ids)
    agents = [await world.agent(id) for id in ids]

    await lose_all_but(world, agents[:2])

    assert [is_held(world.node(id)) for id in ids] == [False, False, True, True, True, True]
    assert world.node("n5").status.message.startswith(MARK)
    assert "4 of 6 nodes are gone at once" in caplog.text


async def test_a_held_node_that_comes_back_is_ready(world: Any) -> None:
    ids = [f"n{number}" for number in range(4)]
    await world.add_nodes(*ids)
    agents = [await world.agent(id) for id in ids]
    await lose_all_but(world, agents[:1])

    await world.agent("n3")

    assert (world.node("n3").status.state, world.node("n3").status.message) == (NodeStatus.READY, "")
    assert is_held(world.node("n2"))


async def test_few_nodes_gone_are_ordinary_losses(world: Any) -> None:
    await world.add_nodes("n0", "n1")
    agents = [await world.agent(id) for id in ("n0", "n1")]

    await lose_all_but(world, agents[:1])

    assert world.node("n1").status.message == DOWN_MESSAGE


async def test_the_cluster_says_whether_there_is_a_brake(world: Any) -> None:
    cluster = Cluster()
    cluster.CopyFrom(world.store.view.cluster.get("cluster"))
    cluster.spec.annotations.labels[LABEL] = "off"
    await world.store.update(lambda tx: tx.cluster.update(cluster))
    ids = [f"n{number}" for number in range(4)]
    await world.add_nodes(*ids)
    agents = [await world.agent(id) for id in ids]

    await lose_all_but(world, agents[:1])

    assert {world.node(id).status.message for id in ids[1:]} == {RELEASED}


def test_what_was_let_go_reads_as_an_ordinary_loss() -> None:
    assert RELEASED == DOWN_MESSAGE

"""Sessions, heartbeats and the states of nodes, in simulated time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from swarmcore.api.types_pb2 import NodeDescription, NodeStatus, Peer, TaskState, WeightedPeer
from swarmcore.dispatcher import leases, sessions
from swarmcore.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.testing.clock import let_the_loop_run

DAY = 240.0


async def test_a_registered_node_is_ready_with_its_address_and_description(world: Any) -> None:
    await world.add_nodes("n1")

    agent = await world.agent("n1", description=NodeDescription(hostname="box"))

    node = world.node("n1")
    assert node.status.state == NodeStatus.READY
    assert node.status.addr == "10.0.0.7"
    assert node.description.hostname == "box"
    first = agent.session.messages[0]
    assert first.session_id
    assert first.node.id == "n1"
    assert [manager.peer.node_id for manager in first.managers] == ["manager-1"]
    assert first.RootCA == b"the root"


async def test_a_node_that_the_store_does_not_know_gets_no_session(world: Any) -> None:
    agent = await world.agent("stranger")

    assert type(agent.session.error) is SwarmError
    assert str(agent.session.error) == "node not found"


async def test_naming_the_current_session_keeps_it(world: Any) -> None:
    await world.add_nodes("n1")
    first = await world.agent("n1")

    again = await world.agent("n1", session_id=first.session_id)

    assert again.session_id == first.session_id
    assert isinstance(first.session.error, AbortedError)
    assert again.session.is_open


async def test_naming_an_old_session_makes_a_new_one_and_ends_the_old(world: Any) -> None:
    await world.add_nodes("n1")
    first = await world.agent("n1")

    second = await world.agent("n1", session_id="of another leader")

    assert second.session_id != first.session_id
    assert isinstance(first.session.error, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError, match="session invalid"):
        await first.beat()


async def test_a_heartbeat_names_the_configured_period_give_or_take_half_a_second(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")

    periods = [await agent.beat() for _ in range(50)]

    assert all(4.5 <= period <= 5.5 for period in periods)
    assert len(set(periods)) > 10


async def test_a_heartbeat_without_a_session_is_refused(world: Any) -> None:
    await world.add_nodes("n1", "n2")
    agent = await world.agent("n1")
    other = await world.agent("n2")

    with pytest.raises(InvalidArgumentError):
        await agent.beat("")
    with pytest.raises(InvalidArgumentError):
        await agent.beat(other.session_id)


async def test_a_silent_node_is_down_after_three_periods_and_its_streams_end(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    watch = await agent.assignments()

    await world.clock.advance(13)
    before = world.node("n1").status.state
    await world.clock.advance(5)

    assert before == NodeStatus.READY
    assert world.node("n1").status.state == NodeStatus.DOWN
    assert world.node("n1").status.message == "heartbeat failure"
    assert isinstance(agent.session.error, NotFoundError)
    assert isinstance(watch.error, NotFoundError)
    with pytest.raises(NotFoundError, match="node not registered"):
        await agent.beat()


async def test_a_node_that_beats_stays_ready(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")

    for _ in range(20):
        await world.clock.advance(5)
        await agent.beat()

    assert world.node("n1").status.state == NodeStatus.READY


async def test_a_node_that_comes_back_is_ready_again_and_keeps_its_tasks(world: Any, task_of: Any) -> None:
    await world.add_nodes("n1")
    await world.agent("n1")
    await world.put_tasks(task_of("t1", "n1", TaskState.RUNNING))
    await world.clock.advance(60)

    await world.agent("n1")
    await world.clock.advance(10)

    assert world.node("n1").status.state == NodeStatus.READY
    assert world.node("n1").status.message == ""
    assert world.task("t1").status.state == TaskState.RUNNING


async def test_the_log_has_a_line_for_a_new_node_and_for_one_that_went_and_came_back(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swarmcore.dispatcher")
    await world.add_nodes("n1")

    agent = await world.agent("n1", description=NodeDescription(hostname="box"))
    await world.agent("n1", session_id=agent.session_id, description=NodeDescription(hostname="box"))
    await world.clock.advance(60)
    await world.agent("n1", description=NodeDescription(hostname="box"))

    assert caplog.messages == [
        "node 'box' (n1) is ready for the first time",
        "node 'box' (n1) is down: heartbeat failure",
        "node 'box' (n1) is ready again",
    ]


async def test_tasks_of_a_node_that_is_down_for_a_day_are_orphaned(
    world: Any, task_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A day of one-second ticks would take its time here.
    assert leases.ORPHAN_SECONDS == 24 * 3600
    monkeypatch.setattr(sessions, "ORPHAN_SECONDS", DAY)
    await world.add_nodes("n1")
    await world.agent("n1")
    await world.put_tasks(task_of("runs", "n1", TaskState.RUNNING), task_of("failed", "n1", TaskState.FAILED))
    await world.clock.advance(30)

    await world.clock.advance(DAY - 20)
    before = world.task("runs").status.state
    await world.clock.advance(40)

    assert before == TaskState.RUNNING
    assert world.task("runs").status.state == TaskState.ORPHANED
    assert world.task("failed").status.state == TaskState.FAILED


async def test_after_a_change_of_leader_a_node_is_unknown_until_it_comes(world: Any) -> None:
    await world.add_nodes("comes", "silent", "was-down", state=NodeStatus.READY)
    await world.add_nodes("gone", state=NodeStatus.DOWN)
    await world.stop_leading()

    await world.lead()
    agent = await world.agent("comes")
    early = {id: world.node(id).status.state for id in ("comes", "silent", "gone")}
    for _ in range(2):
        await world.clock.advance(13)
        await agent.beat()
    later = world.node("silent").status.state
    await world.clock.advance(10)

    assert early == {"comes": NodeStatus.READY, "silent": NodeStatus.UNKNOWN, "gone": NodeStatus.DOWN}
    assert later == NodeStatus.UNKNOWN
    assert world.node("silent").status.state == NodeStatus.DOWN
    assert world.node("silent").status.message == 'heartbeat failure for node in "unknown" state'


async def test_registrations_in_quick_succession_are_held_back(world: Any) -> None:
    await world.add_nodes("n1")
    refused = []
    for _ in range(6):
        agent = await world.agent("n1")
        refused.append(isinstance(agent.session.error, UnavailableError))
        await world.clock.advance(1)

    await world.clock.advance(9)
    late = await world.agent("n1")

    assert refused == [False, False, False, False, True, True]
    assert late.session.is_open


async def test_the_session_hears_of_its_node_the_managers_and_the_keys(world: Any) -> None:
    await world.add_nodes("n1", "n2")
    agent = await world.agent("n1")
    world.managers.append(WeightedPeer(peer=Peer(node_id="manager-2", addr="10.0.0.2:4242"), weight=10))

    await world.clock.advance(1.5)
    managers = agent.session.messages[-1].managers

    def rotate(tx: Any) -> None:
        cluster = type(tx.cluster.get("cluster"))()
        cluster.CopyFrom(tx.cluster.get("cluster"))
        cluster.root_ca.ca_cert = b"a new root"
        tx.cluster.update(cluster)

    await world.store.update(rotate)
    await let_the_loop_run()
    root = agent.session.messages[-1].RootCA

    def drain(tx: Any) -> None:
        node = type(tx.node.get("n1"))()
        node.CopyFrom(tx.node.get("n1"))
        node.spec.availability = 2
        tx.node.update(node)

    await world.store.update(drain)
    await let_the_loop_run()

    assert len(managers) == 2
    assert root == b"a new root"
    assert agent.session.messages[-1].node.spec.availability == 2


async def test_an_agent_is_never_left_without_a_manager_to_turn_to(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    world.managers.clear()

    await world.clock.advance(3)
    again = await world.agent("n1", session_id=agent.session_id)

    assert [manager.peer.node_id for manager in again.session.messages[0].managers] == ["manager-1"]


async def test_what_does_not_concern_a_session_is_not_sent_to_it(world: Any) -> None:
    await world.add_nodes("n1", "n2")
    agent = await world.agent("n1")
    sent = len(agent.session.messages)

    await world.agent("n2")
    await world.clock.advance(5)

    assert len(agent.session.messages) == sent


async def test_a_removed_node_is_told_so(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")

    await world.store.update(lambda tx: tx.node.delete("n1"))
    await let_the_loop_run()

    assert isinstance(agent.session.error, PermissionDeniedError)


async def test_losing_leadership_sends_agents_away_with_a_last_list_of_managers(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")
    watch = await agent.assignments()
    sent = len(agent.session.messages)

    await world.stop_leading()

    assert len(agent.session.messages) == sent + 1
    assert isinstance(agent.session.error, AbortedError)
    assert str(agent.session.error) == "node must disconnect"
    assert isinstance(watch.error, AbortedError)
    assert world.node("n1").status.state == NodeStatus.DISCONNECTED
    with pytest.raises(AbortedError, match="dispatcher is stopped"):
        await agent.beat()


async def test_a_stream_that_the_agent_drops_changes_nothing(world: Any) -> None:
    await world.add_nodes("n1")
    agent = await world.agent("n1")

    await agent.session.close()
    await let_the_loop_run()

    assert world.node("n1").status.state == NodeStatus.READY
    assert await agent.beat() > 0

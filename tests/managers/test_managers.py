"""Three managers on real processes: who dies, hangs, leaves or moves, and what goes on without a word.

The tests share one group, in this order; each leaves three managers that hear one another.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from swarmcore.cli.swarmd import REMOVED_EXIT
from swarmcore.testing.cluster import SwarmctlError, wait_until
from swarmcore.testing.faults import marked, processes
from swarmcore.testing.machines import Machines, complaint
from swarmcore.testing.ports import free_port

REFUSED_SECONDS = 5.0
NAMES = ("m1", "m2", "m3")
_written: list[str] = []
T = TypeVar("T")


def eventually(check: Callable[[], T], *, seconds: float = 20.0) -> T:
    """`wait_until`, also through refusals."""

    def checked() -> T:
        try:
            return check()
        except SwarmctlError as error:
            raise AssertionError(str(error)) from error

    return wait_until(checked, seconds=seconds)


def leader_of(group: Machines, by: str) -> str:
    """Who leads, as `by` shows it."""
    (leader,) = [name for name, status in group.managers(by).items() if "*" in status] or [""]
    assert leader, "nobody leads"
    return leader


def settled(group: Machines) -> str:
    """Wait until all three managers hear one another, and agree on who leads; return that."""
    for name in NAMES:
        if not group.nodes[name].is_running:
            group.restart(name, ready=False)

    def agreed() -> str:
        seen = {by: group.managers(by) for by in NAMES}
        assert all(all("REACHABLE" in s and "UNREACHABLE" not in s for s in one.values()) for one in seen.values()), (
            seen
        )
        assert all(len(one) == len(NAMES) for one in seen.values()), seen
        leaders = {leader_of(group, by) for by in NAMES}
        assert len(leaders) == 1, leaders
        return leaders.pop()

    return eventually(agreed, seconds=40)


def others(leader: str) -> tuple[str, str]:
    first, second = (name for name in NAMES if name != leader)
    return first, second


def write(group: Machines, by: str) -> str:
    """Write something that is looked for at the end."""
    name = f"c{len(_written)}"
    group.nodes[by].swarmctl("config", "create", name, stdin=b"x")
    _written.append(name)
    return name


def written(group: Machines, by: str) -> set[str]:
    return {row["Name"] for row in group.nodes[by].swarmctl.table("config", "ls")}


@pytest.fixture
def pids(group: Machines) -> Iterator[set[int]]:
    """The processes of the service's tasks, which must be the same ones after the test."""
    before = set(processes(marked(0)))
    assert len(before) == 8
    yield before
    assert set(processes(marked(0))) == before


def test_managers_join_by_token_and_tasks_run_everywhere(group: Machines) -> None:
    leader = settled(group)

    assert leader == "m1"
    group.nodes["m2"].swarmctl(
        *("service", "create", "--name", "web", "--runtime", "process", "--replicas", "8"),
        *("--command", "sleep", "--args", marked(0)),
    )

    def all_run() -> None:
        running = [row for row in group.nodes["m3"].swarmctl.table("task", "ls") if row["Last State"][:7] == "RUNNING"]
        assert len(running) == 8 and len({row["Node"] for row in running}) == 4

    eventually(all_run)


def test_after_a_kill_of_the_leader_another_one_takes_writes(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    follower, _ = others(leader)
    write(group, follower)
    group.kill(leader)

    eventually(lambda: write(group, follower), seconds=10)

    def is_missed() -> None:
        assert "UNREACHABLE" in group.managers(follower)[leader]

    eventually(is_missed)
    group.restart(leader)
    assert settled(group) != leader
    assert set(_written) <= written(group, leader)


def test_a_leader_that_stops_hands_over_and_no_write_fails(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    follower, _ = others(leader)
    process = group.nodes[leader].process
    assert process is not None
    process.send_signal(signal.SIGTERM)

    for _ in range(5):
        write(group, follower)

    assert group.nodes[leader].wait_end() == 0
    assert "another manager leads now" in group.nodes[leader].log
    group.restart(leader)
    assert settled(group) != leader


def test_a_leader_that_stands_still_is_replaced_and_follows_when_it_wakes(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    follower, _ = others(leader)
    process = group.nodes[leader].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: write(group, follower), seconds=15)
    finally:
        process.send_signal(signal.SIGCONT)

    assert settled(group) != leader
    assert set(_written) <= written(group, leader)


def test_the_leader_itself_can_be_demoted_and_promoted_again(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    follower, other = others(leader)
    group.nodes[follower].swarmctl("node", "demote", leader)

    def is_worker() -> None:
        assert set(group.managers(follower)) == {follower, other}
        assert not group.nodes[leader].socket.exists()
        assert not (group.nodes[leader].state_dir / "raft").exists()

    eventually(is_worker)
    write(group, follower)
    group.nodes[other].swarmctl("node", "promote", leader)
    assert settled(group) != leader
    assert set(_written) <= written(group, leader)


def test_a_demotion_that_would_lose_the_majority_is_refused(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    follower, other = others(leader)
    group.kill(other)

    def refused() -> None:
        with pytest.raises(SwarmctlError, match="loss of quorum"):
            group.nodes[leader].swarmctl("node", "demote", follower)

    def is_missed() -> None:
        assert "UNREACHABLE" in group.managers(leader)[other]

    eventually(is_missed)
    refused()
    group.restart(other)
    settled(group)


def test_without_a_majority_reads_go_on_and_writes_say_who_is_missing(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    follower, other = others(leader)
    group.kill(follower, other)

    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(SwarmctlError) as refused:
            group.nodes[leader].swarmctl("config", "create", "never", stdin=b"x")
        assert time.monotonic() - started < REFUSED_SECONDS + 1
        for name in (follower, other):
            assert group.addresses[name] in str(refused.value)
        assert "2 of 3 managers must be online" in str(refused.value)
    read = group.nodes[leader].swarmctl.run("config", "ls")
    assert read.returncode == 0
    assert "warning: the swarm has no leader now" in read.stderr.decode()

    group.restart(other)
    eventually(lambda: write(group, leader))
    group.restart(follower)
    settled(group)


def test_all_managers_killed_at_once_come_back_with_everything(group: Machines, pids: set[int]) -> None:
    settled(group)
    group.kill(*NAMES)
    for name in NAMES:
        group.restart(name, ready=False)

    settled(group)
    for name in NAMES:
        assert set(_written) <= written(group, name)


@pytest.mark.parametrize("is_leader", [False, True])
def test_a_manager_at_another_address_is_found_again(group: Machines, pids: set[int], is_leader: bool) -> None:
    leader = settled(group)
    moved = leader if is_leader else others(leader)[0]
    old = group.addresses[moved]
    assert group.nodes[moved].stop() == 0
    group.addresses[moved] = f"127.0.0.1:{free_port()}"
    group.nodes[moved].flags = [group.addresses[moved] if flag == old else flag for flag in group.nodes[moved].flags]
    group.restart(moved)

    settled(group)
    write(group, moved)
    (by, _) = others(moved)

    def is_told() -> None:
        assert group.addresses[moved] in group.nodes[by].swarmctl("node", "inspect", moved)

    eventually(is_told)


def test_a_worker_becomes_a_manager_and_leaves_again(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    group.nodes[leader].swarmctl("node", "promote", "w1")

    def has_four() -> None:
        assert "REACHABLE" in group.managers("w1")["w1"]
        assert set(_written) <= written(group, "w1")

    eventually(has_four)
    group.nodes["w1"].swarmctl("node", "demote", "w1")

    def has_three() -> None:
        assert set(group.managers(leader)) == set(NAMES)

    eventually(has_three)
    settled(group)


def test_who_was_removed_never_returns(group: Machines, pids: set[int]) -> None:
    leader = settled(group)
    extra = group.join("m4", "manager", by=leader)
    with pytest.raises(SwarmctlError, match="demote"):
        group.nodes[leader].swarmctl("node", "remove", "m4")
    extra.kill()

    def demoted() -> None:
        assert "UNREACHABLE" in group.managers(leader)["m4"]

    eventually(demoted)
    group.nodes[leader].swarmctl("node", "demote", "m4")

    def is_out() -> None:
        assert "m4" not in group.managers(leader)

    eventually(is_out)
    group.nodes[leader].swarmctl("node", "remove", "--force", "m4")
    group.restart("m4", ready=False)
    # Its others refuse it, and it goes on as a worker, which is told.
    assert extra.wait_end(seconds=60) == REMOVED_EXIT
    assert "this node was removed from the cluster; its tasks are stopped" in complaint(extra)
    assert set(group.managers(leader)) == set(NAMES)


def test_nothing_that_was_acknowledged_is_missing_anywhere(group: Machines) -> None:
    settled(group)
    for name in NAMES:
        assert set(_written) <= written(group, name)
        assert "Traceback" not in group.nodes[name].log, group.nodes[name].log[-5000:]

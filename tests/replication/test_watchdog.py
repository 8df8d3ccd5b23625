"""A manager whose disk hangs stops leading, says why, and comes back when the disk does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Config
from swarmcore.errors import NotLeaderError, UnavailableError
from swarmcore.replication import replica as replica_module
from swarmcore.replication.log_file import LogFile
from swarmcore.replication.watchdog import ALARM_SECONDS, CALM_ELECTIONS, Watchdog, Work, WriteTimes
from swarmcore.store.transaction import Transaction
from swarmcore.testing.manager_group import GroupMember, manager_group
from swarmcore.testing.replication import running_replica

TICKS = 10


def watchdog() -> Watchdog:
    return Watchdog(election_tick=TICKS, tick_seconds=0.1)


def work(*, is_writing: bool = False, written: int = 0, is_applying: bool = False, applied: int = 0) -> Work:
    return Work(is_writing=is_writing, written=written, is_applying=is_applying, applied=applied)


def ticks_until_unfit(dog: Watchdog, what: Work, limit: int = 1000) -> int:
    for number in range(1, limit):
        if dog.tick(what):
            return number
    raise AssertionError("never judged unfit")


# What is judged


def test_a_write_that_hangs_for_an_election_is_why_a_manager_cannot_lead() -> None:
    dog = watchdog()

    assert ticks_until_unfit(dog, work(is_writing=True)) == TICKS + 1
    assert dog.why_not == "its disk has not answered a write for 1.0 s"


def test_writes_that_are_answered_are_no_reason_however_many_there_are() -> None:
    dog = watchdog()

    assert not any(dog.tick(work(is_writing=True, written=number)) for number in range(10 * TICKS))


def test_nothing_to_do_is_no_reason() -> None:
    dog = watchdog()

    assert not any(dog.tick(work()) for _ in range(10 * TICKS))


def test_agreed_entries_that_are_not_applied_are_a_reason() -> None:
    dog = watchdog()

    assert ticks_until_unfit(dog, work(is_applying=True, applied=7)) == TICKS + 1
    assert "applied nothing" in dog.why_not


def test_it_can_lead_again_once_the_write_was_answered() -> None:
    dog = watchdog()
    ticks_until_unfit(dog, work(is_writing=True))
    assert dog.tick(work(is_writing=True))

    assert dog.tick(work(is_writing=True, written=1)) == ""


def test_where_the_disk_hangs_again_and_again_it_waits_twice_as_long_each_time() -> None:
    dog = watchdog()
    waits = []
    for number in range(7):
        waits.append(ticks_until_unfit(dog, work(is_writing=True, written=number)) // TICKS)
        dog.tick(work(written=number))

    assert waits == [1, 2, 4, 8, 16, 16, 16]


def test_calm_makes_it_strict_again() -> None:
    dog = watchdog()
    for number in range(2):
        ticks_until_unfit(dog, work(is_writing=True, written=number))
        dog.tick(work(written=number))

    for _ in range(2 * CALM_ELECTIONS * TICKS):
        dog.tick(work(written=2))

    assert ticks_until_unfit(dog, work(is_writing=True, written=2)) == TICKS + 1


# How long writes take


def test_slow_writes_are_warned_about_once_a_minute_together(caplog: pytest.LogCaptureFixture) -> None:
    times = WriteTimes(slow_seconds=0.5, where="/raft")

    for number, seconds in enumerate((0.01, 0.7, 0.6, 2.0)):
        times.took(seconds, now=100.0 + number)
    assert len(caplog.records) == 1
    times.took(0.01, now=101.0 + ALARM_SECONDS)

    first, second = (record.getMessage() for record in caplog.records)
    assert "1 writes took 0.50 s and more, the slowest 0.70 s" in first
    assert "2 writes took 0.50 s and more, the slowest 2.00 s" in second


def test_times_are_counted_as_prometheus_does() -> None:
    times = WriteTimes(slow_seconds=99.0, where="/raft")

    for seconds in (0.0005, 0.003, 0.003, 100.0):
        times.took(seconds, now=0.0)

    counts = dict(times.cumulative)
    assert (counts[0.001], counts[0.004], counts[8.192], counts[float("inf")]) == (1, 3, 3, 4)
    assert times.total_seconds == pytest.approx(100.0065)


# Real disks, real threads


@contextlib.contextmanager
def hung(log_file: LogFile) -> Iterator[None]:
    """While the block lasts, no write of this log becomes durable; then all that waits does."""
    free = threading.Event()
    sync = log_file._sync

    def wait(descriptor: int) -> None:
        free.wait()
        sync(descriptor)

    log_file._sync = wait
    try:
        yield
    finally:
        log_file._sync = sync
        free.set()


async def write(member: GroupMember, name: str) -> None:
    def create(tx: Transaction) -> None:
        config = Config(id=name)
        config.spec.annotations.name = name
        tx.config.create(config)

    await member.store.update(create)


def has(member: GroupMember, name: str) -> bool:
    return name in member.store.view.config


async def test_a_leader_whose_disk_hangs_hands_over_and_follows_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swarmcore.replication")
    async with manager_group(tmp_path, 3) as group:
        old = await group.leader()
        with hung(old.replica._log_file):
            with pytest.raises(NotLeaderError):
                await write(old, "hung")
            new = await group.leader(besides=old.node_id)
            await write(new, "after")
            assert old.replica.term == 0
            assert "has not answered a write" in old.replica.why_unfit
        await group.wait(lambda: has(old, "after"))

        await group.wait(lambda: not old.replica.why_unfit)
        # What the old one had sent was agreed all the same: nobody was told that it was not.
        assert has(new, "hung")
        assert "this manager gives up leading: handing over: its disk has not answered" in caplog.text
        assert "this manager can lead again" in caplog.text


async def test_a_follower_whose_disk_hangs_holds_nobody_up(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        slow = next(member for member in group.members.values() if member is not leader)
        with hung(slow.replica._log_file):
            for number in range(20):
                await write(leader, f"c{number}")
            await group.wait(lambda: bool(slow.replica.why_unfit))
            assert not has(slow, "c19")

        await group.wait(lambda: has(slow, "c19"))
        assert leader.replica.term


async def test_where_nobody_else_can_lead_writes_fail_with_the_reason_and_resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "STUCK_SECONDS", 1.2)
    async with running_replica(folder) as running:
        with hung(running.replica._log_file):
            with pytest.raises(UnavailableError, match=r"can't write under .* its disk has not answered a write for"):
                await running.create("a")
            assert running.replica.term
            with pytest.raises(UnavailableError, match="can't write"):
                await running.create("b")

        async with asyncio.timeout(10):
            while "a" not in running.task_ids:  # noqa: ASYNC110 - the store has no event for it
                await asyncio.sleep(0.01)
        await running.create("c")
        assert running.task_ids == ["a", "c"]


async def test_what_a_deposed_leader_writes_is_refused_and_nothing_of_it_is_applied_anywhere(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        old = await group.leader()
        stale = old.store.writer(old.replica.term)
        assert await old.replica.hand_over()
        new = await group.leader(besides=old.node_id)
        # Also when the same manager leads again: the term is another one.
        assert await new.replica.hand_over()
        await group.leader(besides=new.node_id)

        def create(tx: Transaction) -> None:
            tx.config.create(Config(id="stale"))

        for member in group.members.values():
            writer = member.store.writer(stale.term)
            with pytest.raises(NotLeaderError):
                await writer.update(create)
            with pytest.raises(NotLeaderError):
                await writer.batch(["x"], lambda tx, item: create(tx))

        await write(await group.leader(), "fresh")
        await group.wait(lambda: all(has(member, "fresh") for member in group.members.values()))
        assert not any(has(member, "stale") for member in group.members.values())

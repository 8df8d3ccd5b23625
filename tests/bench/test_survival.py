"""What the measurements of managers that survive count, and the cluster that they are made on."""

from __future__ import annotations

import asyncio
import signal

import pytest

from bench import failover, large
from bench.failover import failovers, percentile
from bench.groups import NUMBERS, CallRefused
from bench.standing import NoQuorum, _slope
from bench.survival import LONG, PARTS, SHORT, parse
from swarmcore.api.types_pb2 import TaskState
from swarmcore.orchestrator.dirty import is_dirty
from swarmcore.testing.store import running_store


class FakeGroup:
    """Takes no writes for as many calls as a test says after its leader went, and forgets every tenth if it should."""

    name = "fake"

    def __init__(self, refused: int, *, forgets: bool = False) -> None:
        self._refused = refused
        self._forgets = forgets
        self._left = 0
        self._leader = 1
        self.gone: set[int] = set()
        self.names: set[str] = set()
        self.ends: list[signal.Signals] = []

    async def leader(self) -> int:
        assert not self.gone
        return self._leader

    async def write(self, via: int, name: str) -> None:
        await asyncio.sleep(0)
        assert via not in self.gone
        if self._left:
            self._left -= 1
            raise CallRefused("no leader")
        if not (self._forgets and name.endswith("0")):
            self.names.add(name)

    async def written(self, via: int) -> set[str]:
        return self.names

    def end(self, number: int, how: signal.Signals) -> None:
        assert number == self._leader
        self.gone.add(number)
        self.ends.append(how)
        self._left = self._refused
        self._leader = number % len(NUMBERS) + 1

    async def start_again(self, number: int) -> None:
        self.gone.remove(number)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(failover, "REFUSED_PAUSE_SECONDS", 0.0)


async def test_the_leader_is_ended_as_often_and_in_the_ways_that_were_asked_for() -> None:
    group = FakeGroup(refused=3)

    found = await failovers(group, idle_kills=2, busy_kills=1, stops=2)

    assert group.ends == [signal.SIGKILL] * 3 + [signal.SIGTERM] * 2
    assert (len(found.idle_kills), len(found.busy_kills), len(found.stops)) == (2, 1, 2)
    assert found.refusals["no leader"] == 3 * 5
    assert found.lost == 0 and found.acknowledged == len(group.names)


async def test_an_acknowledged_write_that_is_missing_is_counted() -> None:
    found = await failovers(FakeGroup(refused=0, forgets=True), idle_kills=5, busy_kills=0, stops=0)

    assert found.acknowledged == 15
    assert found.lost == 1


def test_the_99th_percentile_of_thirty_is_the_largest() -> None:
    assert percentile([float(number) for number in range(30)], 0.99) == 29
    assert percentile([float(number) for number in range(1000)], 0.99) == 989
    assert percentile([1.0], 0.5) == 1


def test_growth_is_carried_on_at_the_pace_of_its_second_half() -> None:
    assert _slope([(float(second), 3.0 + 0.5 * second) for second in range(10)]) == pytest.approx(0.5)
    assert NoQuorum(30, 5.0, 0.1, 0, 0).in_ten_minutes == pytest.approx(5 + 0.1 * 570)
    assert NoQuorum(30, 5.0, -0.1, 0, 0).in_ten_minutes == 5
    assert NoQuorum(600, 5.0, 0.1, 0, 0).in_ten_minutes == 5


async def test_a_large_cluster_is_at_rest() -> None:
    async with running_store() as store:
        await large.fill(store, tasks=2000)

        tasks = list(store.view.task.all())
        assert len(tasks) == len({task.id for task in tasks}) == 2000
        for task in tasks:
            service = store.view.service.get(task.service_id)
            assert service is not None and not is_dirty(service, task, None)
            assert task.node_id in store.view.node
            assert task.status.state == task.desired_state == TaskState.RUNNING


def test_long_is_what_the_targets_name() -> None:
    assert parse([]).parts == list(PARTS)
    assert (LONG.idle_kills, LONG.stops, LONG.busy_seconds, LONG.no_quorum_seconds) == (30, 30, 600, 600)
    assert SHORT.busy_seconds < LONG.busy_seconds

"""Clocks that are far apart are warned about by the node's name, and shown with the node."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from swarmcore.api.metadata import TIME
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.dispatcher.clocks import ClockWatch, time_in
from swarmcore.testing.clock import let_the_loop_run

NOW = 1_700_000_000.0


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "9" * 33])
def test_a_time_that_is_none_is_ignored(text: str) -> None:
    assert time_in(((TIME, text),)) is None


def test_the_callers_time_is_read() -> None:
    assert time_in((("other", "1"), (TIME, "1700000000.250"))) == NOW + 0.25


def test_a_clock_that_is_near_is_not_mentioned() -> None:
    assert ClockWatch().heard("n", "'box'", NOW - 29, NOW) is None


@pytest.mark.parametrize(
    ("skew", "words"), [(45, "45 s ahead of"), (-45, "45 s behind"), (3600, "60 min ahead of"), (-90000, "25 h behind")]
)
def test_a_clock_that_is_far_is_said_once(skew: float, words: str, caplog: pytest.LogCaptureFixture) -> None:
    clocks = ClockWatch()

    first, second = (clocks.heard("n", "'box'", NOW + skew, NOW) for _ in range(2))

    assert first == f"its clock is {words} the leader's: set both by NTP"
    assert second is None
    assert [record.getMessage() for record in caplog.records] == [f"node 'box': {first}"]


def test_what_was_said_is_taken_back_when_the_clock_is_right_and_said_anew_when_it_gets_worse() -> None:
    clocks = ClockWatch()
    clocks.heard("n", "'box'", NOW + 40, NOW)

    near = clocks.heard("n", "'box'", NOW + 20, NOW)
    worse = clocks.heard("n", "'box'", NOW + 400, NOW)
    right = clocks.heard("n", "'box'", NOW + 1, NOW)

    assert (near, right) == (None, "")
    assert worse is not None
    assert "7 min" in worse


async def test_the_nodes_status_says_it_and_takes_it_back(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "swarmcore.dispatcher")
    await world.add_nodes("n1")
    agent = await world.agent("n1")

    await agent.beat(time=f"{world.clock.now() - 120:.3f}")
    await let_the_loop_run()
    said = world.node("n1").status
    await agent.beat(time=f"{world.clock.now():.3f}")
    await let_the_loop_run()

    assert (said.state, said.message) == (NodeStatus.READY, "its clock is 2 min behind the leader's: set both by NTP")
    assert world.node("n1").status.message == ""
    assert "node n1: its clock is 2 min behind the leader's" in caplog.text

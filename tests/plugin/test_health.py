"""The breaker of a plugin that raises."""

from __future__ import annotations

import pytest

from swarmcore.plugin.health import Breaker, Guard, Meter, PluginFailingError


class Moment:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(meter: Meter, moment: Moment, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(KeyError), Guard(meter, "prepare", moment):
            raise KeyError("numa")


def test_five_failures_in_a_minute_open_the_breaker() -> None:
    moment, meter = Moment(), Meter("filter/gpu", Breaker())

    fail(meter, moment, 5)

    assert meter.breaker.last_error == "KeyError: 'numa' in prepare"
    with pytest.raises(PluginFailingError, match="filter/gpu is failing: KeyError: 'numa' in prepare"):
        with Guard(meter, "prepare", moment):
            pytest.fail("the plugin was called")


def test_five_failures_in_more_than_a_minute_do_not() -> None:
    moment, meter = Moment(), Meter("filter/gpu", Breaker())

    for _ in range(5):
        fail(meter, moment)
        moment.now += 16

    assert not meter.breaker.opened


def test_one_probe_each_thirty_seconds_closes_it_when_it_succeeds() -> None:
    moment, meter = Moment(), Meter("filter/gpu", Breaker())
    fail(meter, moment, 5)
    moment.now += 30
    fail(meter, moment)

    with pytest.raises(PluginFailingError), Guard(meter, "prepare", moment):
        pytest.fail("a second probe within 30 s")
    moment.now += 30
    with Guard(meter, "prepare", moment):
        pass

    assert not meter.breaker.opened
    assert meter.calls == 7


def test_p99_is_of_the_timed_calls() -> None:
    meter = Meter("filter/gpu", Breaker())
    for milliseconds in range(1, 101):
        meter.count(1, milliseconds / 1000)
    meter.count(1000)

    assert meter.p99 == pytest.approx(0.100)
    assert meter.calls == 1100

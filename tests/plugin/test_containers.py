"""What engines say of containers, in terms of tasks."""

from __future__ import annotations

import pytest

from swarmcore.plugin import containers
from swarmcore.plugin.containers import Status


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("created", "configured", "initialized"), Status.CREATED),
        (("running", "paused", "restarting", "stopping"), Status.RUNNING),
        (("stopped", "exited", "dead", "Exited"), Status.ENDED),
        (("removing",), Status.REMOVING),
        (("unknown", ""), Status.ENDED),
    ],
)
def test_every_word_of_an_engine_is_one_of_four_states(words: tuple[str, ...], status: Status) -> None:
    assert {containers.status({"State": {"Status": word}}) for word in words} == {status}


def test_health_is_found_under_either_name() -> None:
    assert containers.health({"State": {"Health": {"Status": "healthy"}}}) == "healthy"
    assert containers.health({"State": {"Healthcheck": {"Status": "starting"}}}) == "starting"
    assert containers.health({"State": {}}) == ""

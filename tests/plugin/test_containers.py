"""What engines say of containers, in terms of tasks."""

from __future__ import annotations

import pytest

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import PortConfig
from swarmcore.plugin import containers
from swarmcore.plugin.containers import Status, refuse_meaningless
from swarmcore.plugin.executor import TaskRejectedError


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


@pytest.mark.parametrize(
    ("test", "is_known"),
    [
        ([], True),
        (["NONE"], True),
        (["CMD", "true"], True),
        (["CMD-SHELL", "true || false"], True),
        (["CMD"], False),
        (["CMD-SHELL", ""], False),
        (["true"], False),
        ([""], False),
    ],
)
def test_a_health_check_that_no_engine_would_run_is_refused(test: list[str], is_known: bool) -> None:
    task = Task(id="t")
    task.spec.container.healthcheck.test.extend(test)

    assert refusal(task) == ("" if is_known else "container.healthcheck.test")


@pytest.mark.parametrize(
    ("signal", "is_known"), [("", True), ("SIGTERM", True), ("9", True), ("64", True), ("65", False), ("0", False)]
)
def test_a_number_that_is_no_signal_is_refused(signal: str, is_known: bool) -> None:
    task = Task(id="t")
    task.spec.container.stop_signal = signal

    assert refusal(task) == ("" if is_known else "container.stop_signal")


def refusal(task: Task) -> str:
    """The field that is refused."""
    try:
        refuse_meaningless(task)
    except TaskRejectedError as error:
        return str(error).partition(":")[0]
    return ""


def test_each_published_port_is_told_once_and_those_that_were_asked_for_first() -> None:
    task = Task(id="t")
    for name, published in (("any", 0), ("b", 8081), ("a", 8080), ("other", 0)):
        task.endpoint.ports.add(name=name, target_port=80, published_port=published, publish_mode=PortConfig.HOST)
    bindings = [{"HostIp": ip, "HostPort": port} for port in ("49153", "8080", "8081") for ip in ("0.0.0.0", "::")]  # noqa: S104

    status = containers.port_status(task, {"NetworkSettings": {"Ports": {"80/tcp": bindings}}})

    assert {port.name: port.published_port for port in status.ports} == {"any": 49153, "b": 8081, "a": 8080}

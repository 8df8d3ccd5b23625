"""`--wait`, followed step by step: the test's `sleep` is where the swarm moves on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import click
import grpc
import pytest

from swarmcore.api.objects_pb2 import Service
from swarmcore.api.types_pb2 import TaskState, UpdateStatus
from swarmcore.cli.command_line import CliError, Settings
from swarmcore.cli.connection import CallError, Manager
from swarmcore.cli.lookup import Names
from swarmcore.cli.progress import progress
from swarmcore.cli.wait import LiveDisplay, PlainDisplay, summary, wait_until_converged
from swarmcore.testing.control_socket import Ctl, FakeManager, a_task, three_nodes


@pytest.fixture
def to(manager: FakeManager) -> Iterator[Manager]:
    client = Manager(Settings(socket=manager.socket))
    yield client
    client.channel.close()


@pytest.fixture
def service(manager: FakeManager) -> Service:
    three_nodes(manager)
    made = Service(id="s1")
    made.spec.annotations.name = "web"
    made.spec.replicated.replicas = 2
    made.spec.task.container.image = "nginx:1"
    manager.put(made)
    return made


def steps(*moves: Callable[[], object]) -> Callable[[float], None]:
    left = iter(moves)

    def sleep(seconds: float) -> None:
        assert seconds > 0
        next(left)()

    return sleep


def test_it_returns_once_all_run_and_says_what_changed(
    manager: FakeManager, to: Manager, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = a_task("b", service, 2, state=TaskState.PENDING)
    waiting.status.err = "no suitable node (unsupported platform on 3 nodes)"

    wait_until_converged(
        to,
        service,
        display=PlainDisplay(),
        sleep=steps(
            lambda: manager.put(a_task("a", service, 1), waiting),
            lambda: None,
            lambda: manager.put(a_task("b", service, 2)),
        ),
    )

    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == (
        "web: 0/2 running\n"
        "web: 1/2 running\n"
        "web: no suitable node (unsupported platform on 3 nodes)\n"
        "web: 2/2 running\n"
    )  # fmt: skip


def test_a_paused_update_is_the_reason_it_gives_up(manager: FakeManager, to: Manager, service: Service) -> None:
    def pause() -> None:
        service.update_status.state = UpdateStatus.PAUSED
        service.update_status.message = "update paused due to failure or early termination of task t9"
        manager.put(service)

    with pytest.raises(CliError, match="update paused due to failure or early termination of task t9"):
        wait_until_converged(to, service, display=PlainDisplay(), sleep=steps(pause))


def test_a_service_that_is_removed_meanwhile_ends_it(manager: FakeManager, to: Manager, service: Service) -> None:
    with pytest.raises(CliError, match="service web was removed meanwhile"):
        wait_until_converged(
            to,
            service,
            display=PlainDisplay(),
            sleep=steps(lambda: manager.write(lambda tx: tx.service.delete("s1"))),
        )


def test_interrupting_leaves_the_service_and_says_so(
    manager: FakeManager, to: Manager, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(click.exceptions.Exit) as ended:
        wait_until_converged(to, service, display=PlainDisplay(), sleep=steps(interrupt))

    assert ended.value.exit_code == 130
    assert "The service stays as it is: `swarmctl service inspect web`" in capsys.readouterr().err
    assert manager.one("service").id == "s1"


def test_an_update_is_looked_at_twice_since_the_first_look_can_come_too_early(
    manager: FakeManager, to: Manager, service: Service
) -> None:
    service.previous_spec.CopyFrom(service.spec)
    manager.put(service, a_task("a", service, 1), a_task("b", service, 2))
    looks: list[str] = []

    wait_until_converged(to, service, display=PlainDisplay(), sleep=lambda _: looks.append("again"))

    assert looks == ["again"]


def test_the_bars_are_drawn_for_many_slots_in_little_room(
    manager: FakeManager,
    to: Manager,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("COLUMNS", "100")
    service.spec.replicated.replicas = 50
    stuck = a_task("t50", service, 50, state=TaskState.PENDING)
    stuck.status.err = "no suitable node (insufficient resources on 3 nodes)"
    manager.put(service, *(a_task(f"t{n}", service, n, node="91c04eb0s86k8") for n in range(1, 50)), stuck)

    wait_until_converged(
        to,
        service,
        display=LiveDisplay(Names(to)),
        sleep=steps(lambda: manager.put(a_task("t50", service, 50, node="91c04eb0s86k8"))),
    )

    shown = capsys.readouterr().err
    assert "web.50" in shown and "insufficient resources" in shown
    assert "web.49" not in shown, "what runs is only counted where there is little room"
    assert "web: 50/50 running" in shown


def test_more_slots_on_their_way_than_there_is_room_for_are_counted(
    manager: FakeManager,
    to: Manager,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LINES", "10")
    service.spec.replicated.replicas = 50
    manager.put(service)

    wait_until_converged(
        to,
        service,
        display=LiveDisplay(Names(to)),
        sleep=steps(lambda: manager.put(*(a_task(f"t{n}", service, n) for n in range(1, 51)))),
    )

    assert "… and 44 more on their way" in capsys.readouterr().err


def test_tasks_from_before_an_update_are_counted_as_such(service: Service) -> None:
    old = [a_task("a", service, 1), a_task("b", service, 2)]
    service.spec.task.container.image = "nginx:2"
    service.spec_version.index += 1

    assert summary(service, progress(service, old)) == "web: 0/2 running, 2 to update"


def test_a_failing_wait_ends_the_command_with_1_after_the_id(manager: FakeManager, ctl: Ctl, service: Service) -> None:
    ended = a_task("a", service, 1, state=TaskState.FAILED)
    ended.desired_state = TaskState.SHUTDOWN
    ended.status.err = "task: non-zero exit (1)"
    service.spec.replicated.replicas = 2
    manager.put(service, ended)

    shown = ctl("service", "update", "web", "--replicas", "1", "--wait")

    assert (shown.code, shown.out) == (1, "s1\n")
    assert "Error: 1 of 1 tasks of web ended and are not restarted: task: non-zero exit (1)" in shown.err


def test_a_manager_that_is_away_for_a_while_is_asked_again(
    manager: FakeManager,
    to: Manager,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, lost = to.call, [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]

    def call(method: Any, request: Any) -> Any:
        if lost:
            raise CallError("gone", lost.pop())
        return real(method, request)

    monkeypatch.setattr(to, "call", call)
    manager.put(a_task("a", service, 1), a_task("b", service, 2))

    wait_until_converged(to, service, display=PlainDisplay(), sleep=lambda _: None)

    assert capsys.readouterr().err == "The manager does not answer; asking again for 60 s.\nweb: 2/2 running\n"


def test_a_manager_that_stays_away_ends_the_waiting(
    to: Manager, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(method: Any, request: Any) -> Any:
        raise CallError("gone", grpc.StatusCode.UNAVAILABLE)

    monkeypatch.setattr(to, "call", call)
    times = itertools.count(step=20)

    with pytest.raises(CallError, match="gone"):
        wait_until_converged(
            to, service, display=PlainDisplay(), sleep=lambda _: None, monotonic=lambda: float(next(times))
        )

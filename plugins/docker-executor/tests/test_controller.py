"""What a controller makes of an engine that is slow, busy or interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_docker_executor.answers import Answers
from swarmcore_docker_executor.controller import DockerController, Parts
from swarmcore_docker_executor.engine import Engine
from swarmcore_docker_executor.executor import DockerExecutor
from swarmcore_docker_executor.images import Images

from swarmcore.api.objects_pb2 import Node, Task
from swarmcore.plugin.containers import LABEL_TASK_ID
from swarmcore.plugin.executor import Dependencies, ExitError, HostInfo, TaskRejectedError, TemporaryError
from swarmcore.plugin.task_files import MemoryFolder
from swarmcore.testing.fake_docker import Answer, FakeDocker, fake_docker


class OneContainer:
    """An engine with at most one container; what it does can be held up or made to fail by its first word."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.gates: dict[str, asyncio.Event] = {}
        self.failures: dict[str, Answer] = {}

    async def answer(self, method: str, path: str) -> Answer:
        what = path.partition("?")[0].rpartition("/")[2]
        verb = "remove" if method == "DELETE" else "inspect" if what == "json" and "/containers/" in path else what
        if verb in self.gates:
            await self.gates[verb].wait()
        if verb in self.failures:
            return self.failures.pop(verb)
        return self.act(verb)

    def act(self, verb: str) -> Answer:
        if verb == "create":
            self.status = "created"
            return 201, {"Id": "c1"}
        if self.status is None:
            return 404, {"message": "no such container"}
        if verb == "start":
            self.status = "running"
            return 204, None
        if verb == "kill" and self.status != "running":
            return 409, {"message": "is not running"}
        if verb == "kill":
            self.status = "exited"
            return 204, None
        if verb == "remove":
            self.status = None
            return 204, None
        state = {"Status": self.status, "Running": self.status == "running", "ExitCode": 0}
        return 200, {"Id": "c1", "State": state, "Config": {"Labels": {LABEL_TASK_ID: "t1"}}}


class NoImages(Images):
    async def fetch(self, image: str, registry_auth: str) -> None:
        """Every image is here."""


@contextlib.asynccontextmanager
async def controller_on(
    container: OneContainer, folder: Path, *, has_events: bool = False
) -> AsyncIterator[tuple[DockerController, FakeDocker]]:
    task = Task(id="t1", slot=1)
    task.service_annotations.name = "web"
    task.spec.container.image = "redis"
    async with fake_docker(container.answer) as docker:
        docker.has_events = has_events
        engine = Engine(docker.address, "1.41")
        events, images = engine.events(), NoImages(engine)
        if has_events:
            with events.watch("any") as watcher:
                await watcher.wait(5)
        parts = Parts(engine, events, Answers(docker.address), images, MemoryFolder(folder / "s"))
        controller = DockerController(parts, task, Dependencies())
        try:
            yield controller, docker
        finally:
            await controller.aclose()
            images.close()
            await events.aclose()
            await engine.aclose()


async def cancelled(call: asyncio.Future[None]) -> None:
    call.cancel()
    await asyncio.wait([call])


async def test_a_start_that_was_given_up_is_stopped_once_it_is_done(tmp_path: Path) -> None:
    container = OneContainer()
    async with controller_on(container, tmp_path) as (controller, docker):
        await controller.prepare()
        gate = container.gates["start"] = asyncio.Event()
        starting = asyncio.ensure_future(controller.start())
        await docker.wait_asked("/start")
        await cancelled(starting)

        stopping = asyncio.ensure_future(controller.shutdown())
        await asyncio.sleep(0.05)
        gate.set()
        await stopping

        assert container.status == "exited"


async def test_a_container_that_is_being_made_is_removed_once_it_is_there(tmp_path: Path) -> None:
    container = OneContainer()
    async with controller_on(container, tmp_path) as (controller, docker):
        gate = container.gates["create"] = asyncio.Event()
        preparing = asyncio.ensure_future(controller.prepare())
        await docker.wait_asked("/create")
        await cancelled(preparing)

        removing = asyncio.ensure_future(controller.remove())
        await asyncio.sleep(0.05)
        gate.set()
        await removing

        assert container.status is None
        assert any(each.startswith("DELETE") for each in docker.asked)


async def test_a_name_that_is_just_being_given_up_is_waited_for(tmp_path: Path) -> None:
    container = OneContainer()
    container.failures["create"] = (409, {"message": "the name is in use"})
    async with controller_on(container, tmp_path) as (controller, _):
        with pytest.raises(TemporaryError, match="in use"):
            await controller.prepare()

        await controller.prepare()

        assert container.status == "created"


async def test_a_removal_that_fails_for_now_is_due_again(tmp_path: Path) -> None:
    container = OneContainer()
    async with controller_on(container, tmp_path) as (controller, _):
        await controller.prepare()
        container.failures["remove"] = (500, {"message": "device or resource busy"})

        with pytest.raises(TemporaryError, match="busy"):
            await controller.remove()
        await controller.remove()

        assert container.status is None


@pytest.mark.parametrize("code", [500, 503])
async def test_an_engine_that_does_not_know_right_now_ends_no_task(tmp_path: Path, code: int) -> None:
    container = OneContainer()
    async with controller_on(container, tmp_path) as (controller, docker):
        await controller.prepare()
        await controller.start()
        container.failures["inspect"] = (code, {"message": "the daemon is going"})
        docker.asked.clear()

        waiting = asyncio.ensure_future(controller.wait())
        await docker.wait_asked("/json")
        await asyncio.sleep(0.02)
        is_over = waiting.done()
        await cancelled(waiting)

        assert not is_over


async def test_a_start_asks_no_more_than_it_has_to(tmp_path: Path) -> None:
    async with controller_on(OneContainer(), tmp_path) as (controller, docker):
        await controller.prepare()
        docker.asked.clear()

        await controller.start()

        calls = [each for each in docker.asked if "/events" not in each]
        assert calls == ["POST /containers/c1/start", "GET /containers/c1/json"]


async def test_a_container_that_ended_tells_its_code(tmp_path: Path) -> None:
    container = OneContainer()
    async with controller_on(container, tmp_path) as (controller, _):
        await controller.prepare()
        await controller.start()
        container.status = "dead"

        with pytest.raises(ExitError):
            await controller.wait()


async def test_a_template_is_refused_by_its_field_before_anything_is_made(tmp_path: Path) -> None:
    task = Task(id="t1", slot=1)
    task.spec.container.image = "redis"
    task.spec.container.env.append("HOST={{.Node.Nothing}}")
    async with fake_docker(OneContainer().answer) as docker:
        engine = Engine(docker.address, "1.41")
        executor = DockerExecutor(engine, HostInfo(state_dir=str(tmp_path)))
        await executor.configure(Node(id="n"))

        with pytest.raises(TaskRejectedError, match=r"env\[0\].*Node\.Nothing"):
            await executor.controller(task, Dependencies())

        await executor.aclose()
        assert not any("/containers" in each for each in docker.asked)


async def test_a_wait_asks_nothing_where_nothing_has_happened_since_the_start(tmp_path: Path) -> None:
    async with controller_on(OneContainer(), tmp_path, has_events=True) as (controller, docker):
        await controller.prepare()
        await controller.start()
        docker.asked.clear()

        waiting = asyncio.ensure_future(controller.wait())
        await asyncio.sleep(0.02)
        await cancelled(waiting)

        assert docker.asked == []

"""What goes wrong on a container engine, each with the reason that the task tells, once, and in the engine's words.

Checks that both container engines run; the subclass has a fixture `engine`. After each the executor goes on working.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Final

import pytest

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Secret, Task
from swarmcore.api.types_pb2 import Mount, PortConfig
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    Executor,
    ExitError,
    PortStatuser,
    TaskRejectedError,
)
from swarmcore.testing.engines import busybox_image
from swarmcore.testing.executor_contract.container_tasks import (
    NOTHING,
    ContainerEngine,
    make_task,
    name_of,
    output,
    started,
)
from swarmcore.testing.executor_contract.on_engine import OnEngine
from swarmcore.testing.ports import listen
from swarmcore.testing.registry import registry

LOGIN: Final = ("swarm", "correct horse")
NOTICED_SECONDS: Final = 2.0


def auth_of(name: str, password: str) -> str:
    """As in `pull_options.registry_auth`."""
    login = {"username": name, "password": password}
    return base64.urlsafe_b64encode(json.dumps(login).encode()).decode()


async def refusal(executor: Executor, task: Task, dependencies: Dependencies = NOTHING) -> str:
    """What the task is rejected with; the executor then still runs another one."""
    with pytest.raises(TaskRejectedError) as raised:
        async with started(executor, task, dependencies):
            pass
    assert await output(executor, make_task("echo still here")) == "still here\n"
    said = str(raised.value)
    assert "\n" not in said, f"the reason has several lines: {said!r}"
    return said


class ContainerFaults(OnEngine):
    """Bad input, and what fails around it."""

    @pytest.mark.parametrize(
        ("name", "meaning"),
        [
            ("nosuch:1", "no such image in the registry"),
            ("app:nosuch", "no such tag in the registry"),
            ("broken:1", "the registry failed"),
        ],
    )
    async def test_what_the_registry_has_not_is_said(
        self, executor: Executor, engine: ContainerEngine, name: str, meaning: str
    ) -> None:
        task = make_task()
        with registry(namespace=engine.namespace, port=engine.registry_port) as there:
            task.spec.container.image = there.image(name)
            said = await refusal(executor, task)

        assert said.startswith(f"image {there.image(name)!r}: {meaning}: "), said

    async def test_a_registry_that_can_not_be_reached_is_said(self, executor: Executor) -> None:
        task = make_task()
        task.spec.container.image = "127.0.0.1:1/nosuch:9"

        said = await refusal(executor, task)

        assert said.startswith("image '127.0.0.1:1/nosuch:9': the registry can't be reached: "), said
        assert said.count("connection refused") == 1, said

    @pytest.mark.parametrize("auth", ["", auth_of("swarm", "wrong battery")])
    async def test_a_login_that_is_wrong_or_missing_is_said_and_not_shown(
        self, executor: Executor, engine: ContainerEngine, auth: str
    ) -> None:
        task = make_task()
        task.spec.container.pull_options.registry_auth = auth
        with registry(namespace=engine.namespace, port=engine.registry_port, login=LOGIN) as there:
            task.spec.container.image = there.image("app:1")
            said = await refusal(executor, task)

        assert said.startswith(f"image {there.image('app:1')!r}: the registry refuses access: "), said
        assert "wrong battery" not in said

    async def test_an_image_is_pulled_with_the_login_of_the_task(
        self, executor: Executor, engine: ContainerEngine
    ) -> None:
        task = make_task("echo pulled")
        task.spec.container.pull_options.registry_auth = auth_of(*LOGIN)
        with registry(namespace=engine.namespace, port=engine.registry_port, login=LOGIN) as there:
            task.spec.container.image = there.image("app:1")
            said = await output(executor, task)
            await engine.run("rmi", there.image("app:1"))

        assert said == "pulled\n"

    @pytest.mark.parametrize(
        ("command", "words"),
        [("/nosuch", "no such file or directory"), ("/etc/hosts", "permission denied"), ("nosuch", "nosuch")],
    )
    async def test_a_command_that_can_not_be_run_is_said(self, executor: Executor, command: str, words: str) -> None:
        task = make_task()
        task.spec.container.command[:] = [command]

        assert words in (await refusal(executor, task)).lower()

    async def test_a_user_that_does_not_exist_is_said(self, executor: Executor) -> None:
        task = make_task()
        task.spec.container.user = "nobodyknows"

        assert "nobodyknows" in await refusal(executor, task)

    async def test_a_port_that_another_task_has_is_said(self, executor: Executor) -> None:
        first, second = make_task(), make_task()
        first.endpoint.ports.add(target_port=80, publish_mode=PortConfig.HOST)
        async with started(executor, first) as controller:
            port = await _published(controller)
            second.endpoint.ports.add(target_port=80, published_port=port, publish_mode=PortConfig.HOST)
            said = await refusal(executor, second)

        assert str(port) in said and ("already" in said or "in use" in said), said

    async def test_a_port_that_another_program_has_is_said(self, executor: Executor, engine: ContainerEngine) -> None:
        task = make_task()
        with listen(engine.namespace, address="0.0.0.0") as taken:  # noqa: S104 - as the engine does
            port = taken.getsockname()[1]
            task.endpoint.ports.add(target_port=80, published_port=port, publish_mode=PortConfig.HOST)
            said = await refusal(executor, task)

        assert str(port) in said and "in use" in said, said

    async def test_a_mount_whose_source_is_missing_is_said(self, executor: Executor) -> None:
        task = make_task()
        task.spec.container.mounts.add(type=Mount.BIND, source="/no/such/folder", target="/x")

        assert "bind source path does not exist: /no/such/folder" in await refusal(executor, task)

    async def test_a_volume_of_a_driver_that_is_not_there_is_said(self, executor: Executor) -> None:
        task = make_task()
        mount = task.spec.container.mounts.add(type=Mount.VOLUME, source=f"v{task.id}", target="/x")
        mount.volume_options.driver_config.name = "nosuchdriver"

        assert "nosuchdriver" in await refusal(executor, task)

    @pytest.mark.parametrize(
        "target", ["../x", "a/../../x", "/run/secrets/../../etc/passwd", "/etc/x", "..", "/", "a\0b"]
    )
    async def test_a_secret_that_would_leave_its_folder_is_refused(self, executor: Executor, target: str) -> None:
        task = make_task()
        secret = Secret(id=new_id())
        secret.spec.data = b"hunter2"
        reference = task.spec.container.secrets.add(secret_id=secret.id, secret_name="password")  # noqa: S106
        reference.file.name = target

        said = await refusal(executor, task, Dependencies(secrets={secret.id: secret}))

        assert "leaves its folder" in said and "hunter2" not in said, said

    async def test_a_link_in_the_image_leads_no_secret_out_of_the_container(
        self, executor: Executor, engine: ContainerEngine, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        name = "127.0.0.1:1/linked:1"
        links = {"run/secrets": f"{'../' * 8}{outside.relative_to('/')}"}
        await asyncio.to_thread(lambda: engine.cli("import", "-", name, stdin=busybox_image(links)))
        task = make_task("cat /run/secrets/password")
        task.spec.container.image = name
        secret = Secret(id=new_id())
        secret.spec.data = b"hunter2"
        task.spec.container.secrets.add(secret_id=secret.id, secret_name="password")  # noqa: S106

        said = await output(executor, task, Dependencies(secrets={secret.id: secret}))
        found = list(outside.iterdir())
        await engine.run("rmi", name)

        assert (said, found) == ("hunter2", [])

    async def test_a_container_removed_by_hand_is_noticed_at_once(
        self, executor: Executor, engine: ContainerEngine
    ) -> None:
        task = make_task()
        async with started(executor, task) as controller:
            waiting = asyncio.create_task(controller.wait())
            await engine.run(*engine.remove, name_of(task))

            with pytest.raises((TaskRejectedError, ExitError)):
                async with asyncio.timeout(NOTICED_SECONDS):
                    await waiting


async def _published(controller: Controller) -> int:
    assert isinstance(controller, PortStatuser)
    status = await controller.port_status()
    assert status is not None
    return status.ports[0].published_port

"""Every field of a container spec on a rootless Podman service, and what goes wrong there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Secret
from swarmcore.api.types_pb2 import Mount, PortConfig
from swarmcore.errors import SwarmError
from swarmcore.plugin import abilities
from swarmcore.plugin.executor import Dependencies, Executor, HostInfo, UsageSource
from swarmcore.testing.executor_contract.container_tasks import ContainerEngine, make_task, started
from swarmcore.testing.executor_contract.faults import ContainerFaults, refusal
from swarmcore.testing.executor_contract.fields import ContainerFields
from swarmcore.testing.podman_engines import REGISTRY_PORT, PodmanEngine

pytestmark = pytest.mark.engine

NEEDS_CGROUPS = {
    "resources.limits.nano_cpus",
    "resources.limits.memory_bytes",
    "resources.reservations.memory_bytes",
    "resources.swap_bytes",
    "container.pidsLimit",
    "memory_swappiness",
}
NOT_PODMANS = {"subpath", "readonlyforcerecursive", "selinux_context"}


@pytest.fixture
def engine(rootless_podman_engine: PodmanEngine) -> ContainerEngine:
    return ContainerEngine(
        factory=PodmanFactory(),
        address=rootless_podman_engine.address,
        cli=rootless_podman_engine.podman,
        remove=("rm", "--force", "--time=0"),
        registry_port=REGISTRY_PORT,
        refuses=frozenset({*NOT_PODMANS, *NEEDS_CGROUPS, "container.oom_score_adj"}),
    )


@pytest.fixture
async def executor(engine: ContainerEngine, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = await engine.factory.create(HostInfo(state_dir=str(tmp_path), engine_addr=engine.address))
    yield executor
    await executor.aclose()


class TestRootlessFields(ContainerFields):
    """Of a user's engine."""


class TestRootlessFaults(ContainerFaults):
    """Of a user's engine."""


async def test_a_users_engine_has_no_abilities_that_need_cgroups(executor: Executor) -> None:
    description = await executor.describe()

    stated = {plugin.name for plugin in description.engine.plugins if plugin.type == abilities.PLUGIN_TYPE}
    able = frozenset(stated.pop().split(","))
    assert able >= {"exec", "healthcheck", "host-ports", "logs", "mounts", "secrets", "seccomp", "sysctls", "ulimits"}
    assert not able & {"limits", "pids-limit", "stats", "swap", "swappiness"}


async def test_what_a_task_uses_is_not_made_up(executor: Executor) -> None:
    async with started(executor, make_task()) as controller:
        assert isinstance(controller, UsageSource)
        with pytest.raises(SwarmError, match="stats: the engine gives containers no cgroups"):
            await controller.usage()


async def test_a_file_with_another_owner_than_root_is_refused(executor: Executor) -> None:
    task = make_task()
    secret = Secret(id=new_id())
    secret.spec.data = b"hunter2"
    reference = task.spec.container.secrets.add(secret_id=secret.id, secret_name="password")  # noqa: S106
    reference.file.name, reference.file.uid = "password", "100"

    said = await refusal(executor, task, Dependencies(secrets={secret.id: secret}))

    assert said == "file '/run/secrets/password': a rootless engine can give it no owner but root"


async def test_a_mount_whose_source_the_user_may_not_see_is_said(executor: Executor) -> None:
    task = make_task()
    task.spec.container.mounts.add(type=Mount.BIND, source="/proc/1/fd/0", target="/x")

    assert await refusal(executor, task) == "container.mounts: can't look at '/proc/1/fd/0': Permission denied"


async def test_a_port_that_only_root_may_publish_is_said(executor: Executor) -> None:
    task = make_task()
    task.endpoint.ports.add(target_port=80, published_port=80, publish_mode=PortConfig.HOST)

    said = await refusal(executor, task)

    assert "privileged port 80" in said


async def test_the_users_own_socket_is_found(engine: ContainerEngine, tmp_path: Path) -> None:
    assert await PodmanFactory().available(HostInfo(state_dir=str(tmp_path), engine_addr=engine.address))

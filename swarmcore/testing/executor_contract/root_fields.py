"""What an engine honours that may give its containers limits and owners: one of root, on every host.

Checks that both container engines run; the subclass has a fixture `engine`. A user's own engine, which has no cgroups
of its own, refuses these fields by their names (`OPTIONAL` in `fields.py`).
"""

from __future__ import annotations

import pytest

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Secret
from swarmcore.plugin.executor import Dependencies, Executor, ExitError, TaskRejectedError, UsageSource
from swarmcore.testing.executor_contract.container_tasks import ContainerEngine, make_task, output, started
from swarmcore.testing.executor_contract.fields import MIB
from swarmcore.testing.executor_contract.on_engine import OnEngine


class RootFields(OnEngine):
    """Limits, and what is known by them; owners of files."""

    async def test_limits_reach_the_kernel(self, executor: Executor, engine: ContainerEngine) -> None:
        task = make_task()
        task.spec.resources.limits.memory_bytes = 64 * MIB
        task.spec.resources.limits.nano_cpus = 500_000_000
        task.spec.resources.reservations.memory_bytes = 32 * MIB
        task.spec.resources.swap_bytes.value = 16 * MIB
        task.spec.container.pidsLimit = 77
        async with started(executor, task):
            host = (await engine.inspect(task))["HostConfig"]

        assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 * MIB, 500_000_000, 77)
        assert (host["MemoryReservation"], host["MemorySwap"]) == (32 * MIB, 80 * MIB)

    async def test_swap_of_its_own_needs_a_limit_of_memory(self, executor: Executor) -> None:
        task = make_task()
        task.spec.resources.swap_bytes.value = 16 * MIB

        with pytest.raises(TaskRejectedError, match="swap_bytes"):
            async with started(executor, task):
                pass

    async def test_a_program_that_takes_too_much_memory_is_said_to_have(self, executor: Executor) -> None:
        task = make_task("x=$(yes | head -c 200000000)")
        task.spec.resources.limits.memory_bytes = 32 << 20
        task.spec.resources.swap_bytes.value = 0
        async with started(executor, task) as controller:
            with pytest.raises(ExitError, match=r"\(137\): .*out of memory"):
                await controller.wait()

    async def test_what_a_task_uses_is_told(self, executor: Executor) -> None:
        task = make_task()
        task.spec.resources.limits.memory_bytes = 64 * MIB
        async with started(executor, task) as controller:
            assert isinstance(controller, UsageSource)
            used = await controller.usage()

        assert used.cpu_seconds is not None and used.cpu_seconds > 0
        assert used.memory_limit_bytes == 64 * MIB
        assert used.memory_bytes is not None and 0 < used.memory_bytes < 64 * MIB
        assert used.pids is not None and used.pids >= 2

    async def test_a_secret_has_the_owner_that_it_names(self, executor: Executor) -> None:
        task = make_task("cat /run/secrets/password; stat -c ' %u %g %a' /run/secrets/password")
        secret = Secret(id=new_id())
        secret.spec.data = b"hunter2"
        reference = task.spec.container.secrets.add(secret_id=secret.id, secret_name="password")  # noqa: S106
        reference.file.name, reference.file.mode, reference.file.uid, reference.file.gid = "password", 0o400, "100", "1"
        task.spec.container.user = "100"

        said = await output(executor, task, Dependencies(secrets={secret.id: secret}))

        assert said == "hunter2 100 1 400\n"

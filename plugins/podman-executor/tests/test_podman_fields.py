"""Every field of a container spec on a real Podman service: what the container finds of it, or how it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Config, Node, Secret, Task
from swarmcore.api.types_pb2 import Mount, PortConfig, Privileges
from swarmcore.plugin.executor import (
    Controller,
    Dependencies,
    ExecOptions,
    ExecSource,
    Executor,
    ExecutorError,
    ExitError,
    HostInfo,
    LogOptions,
    LogSource,
    PortStatuser,
    TaskRejectedError,
    UsageSource,
)
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine

IMAGE = "redis:3.0.5"
NOTHING = Dependencies()


@pytest.fixture
async def executor(podman_engine: PodmanEngine, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = await PodmanFactory().create(HostInfo(state_dir=str(tmp_path), engine_addr=podman_engine.address))
    yield executor
    await executor.aclose()


def make_task(script: str = "trap 'exit 0' TERM; sleep 1000 & wait", service: str = "fields") -> Task:
    task = Task(id=new_id(), service_id=new_id(), slot=1, node_id=new_id())
    task.service_annotations.name = service
    task.spec.container.image = IMAGE
    task.spec.container.command.extend(["sh", "-c", script])
    task.spec.container.stop_grace_period.seconds = 2
    return task


@contextlib.asynccontextmanager
async def started(executor: Executor, task: Task, dependencies: Dependencies = NOTHING) -> AsyncIterator[Controller]:
    controller = await executor.controller(task, dependencies)
    try:
        await controller.prepare()
        await controller.start()
        yield controller
    finally:
        await controller.remove()


async def output(executor: Executor, task: Task, dependencies: Dependencies = NOTHING) -> str:
    """All that a task prints which ends by itself, well or not."""
    async with started(executor, task, dependencies) as controller:
        with contextlib.suppress(ExitError):
            await controller.wait()
        assert isinstance(controller, LogSource)
        return b"".join([line.data async for line in controller.logs(LogOptions())]).decode()


async def inspect(engine: PodmanEngine, task: Task) -> dict[str, Any]:
    name = f"{task.service_annotations.name}.{task.slot}.{task.id}"
    found: dict[str, Any] = json.loads(await asyncio.to_thread(engine.podman, "inspect", name))[0]
    return found


async def test_a_container_has_swarmkits_name_and_labels(executor: Executor, podman_engine: PodmanEngine) -> None:
    task = make_task()
    task.spec.container.labels["a"] = "1"
    async with started(executor, task):
        labels = (await inspect(podman_engine, task))["Config"]["Labels"]

    assert labels["a"] == "1"
    assert labels["com.docker.swarm.task.id"] == task.id
    assert labels["com.docker.swarm.service.name"] == "fields"
    assert labels["com.docker.swarm.task"] == ""


async def test_what_a_program_sees_of_itself(executor: Executor) -> None:
    task = make_task(
        'pwd; id -u; id -g; id -G; hostname; echo "$A|$B|$DOCKER_RESOURCE_GPU|$1"; cat /proc/self/oom_score_adj'
    )
    container = task.spec.container
    container.args.extend(["name", "argument"])
    container.dir, container.user, container.hostname = "/var", "1000:1001", "box"
    container.groups.extend(["44", "45"])
    container.env.extend(["A=1=2", "B="])
    container.oom_score_adj = 300
    task.assigned_generic_resources.add().named_resource_spec.MergeFrom(
        type(task.assigned_generic_resources.add().named_resource_spec)(kind="gpu", value="g1")
    )
    del task.assigned_generic_resources[1]

    lines = (await output(executor, task)).splitlines()

    assert lines == ["/var", "1000", "1001", "1001 44 45", "box", "1=2||g1|argument", "300"]


async def test_limits_reach_the_kernel(executor: Executor, podman_engine: PodmanEngine) -> None:
    task = make_task("ulimit -n; ulimit -Hn; trap 'exit 0' TERM; sleep 1000 & wait")
    task.spec.resources.limits.memory_bytes = 64 << 20
    task.spec.resources.limits.nano_cpus = 500_000_000
    task.spec.resources.reservations.memory_bytes = 32 << 20
    task.spec.resources.swap_bytes.value = 16 << 20
    task.spec.container.pidsLimit = 77
    task.spec.container.ulimits.add(name="nofile", soft=100, hard=200)
    # Where the task names any, Podman raises this one as far as it can; not everywhere it may.
    task.spec.container.ulimits.add(name="nproc", soft=1000, hard=1000)
    async with started(executor, task) as controller:
        host = (await inspect(podman_engine, task))["HostConfig"]
        assert isinstance(controller, LogSource)
        lines = [line.data async for line in controller.logs(LogOptions())]

    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 77)
    assert (host["MemoryReservation"], host["MemorySwap"]) == (32 << 20, 80 << 20)
    assert lines == [b"100\n", b"200\n"]


async def test_a_program_that_takes_too_much_memory_is_said_to_have(executor: Executor) -> None:
    task = make_task("x=$(yes | head -c 200000000)")
    task.spec.resources.limits.memory_bytes = 32 << 20
    task.spec.resources.swap_bytes.value = 0
    async with started(executor, task) as controller:
        with pytest.raises(ExitError, match=r"\(137\): .*out of memory"):
            await controller.wait()


async def test_capabilities_sysctls_and_privileges(executor: Executor) -> None:
    task = make_task("grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/sys/net/ipv4/ip_forward")
    container = task.spec.container
    container.capability_add.append("CAP_NET_ADMIN")
    container.capability_drop.append("CAP_CHOWN")
    container.sysctls["net.ipv4.ip_forward"] = "1"
    container.privileges.no_new_privileges = True
    container.privileges.seccomp.mode = Privileges.SeccompOpts.UNCONFINED
    container.privileges.apparmor.mode = Privileges.AppArmorOpts.DISABLED
    container.privileges.selinux_context.disable = True

    found = dict(line.split(":\t") for line in (await output(executor, task)).splitlines() if ":" in line)

    assert int(found["CapBnd"], 16) & 1 == 0
    assert int(found["CapBnd"], 16) >> 12 & 1 == 1
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "0")


async def test_a_seccomp_profile_of_the_tasks_own_holds(executor: Executor) -> None:
    task = make_task("mkdir /tmp/x && echo made; echo over")
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    task.spec.container.privileges.seccomp.mode = Privileges.SeccompOpts.CUSTOM
    task.spec.container.privileges.seccomp.profile = json.dumps(profile).encode()

    said = (await output(executor, task)).splitlines()

    assert "over" in said
    assert "made" not in said


async def test_names_are_looked_up_as_the_task_says(executor: Executor) -> None:
    task = make_task("cat /etc/resolv.conf; cat /etc/hosts")
    task.spec.container.dns_config.nameservers.append("192.0.2.53")
    task.spec.container.dns_config.search.append("example.test")
    task.spec.container.dns_config.options.append("ndots:3")
    task.spec.container.hosts.append("192.0.2.7 seven siete")

    said = await output(executor, task)

    assert "nameserver 192.0.2.53" in said
    assert "search example.test" in said
    assert "ndots:3" in said
    hosts = [line.split() for line in said.splitlines() if line.startswith("192.0.2.7")]
    assert {name for line in hosts for name in line[1:]} == {"seven", "siete"}


async def test_a_read_only_container_with_a_terminal_and_init(executor: Executor, podman_engine: PodmanEngine) -> None:
    task = make_task("echo x 2>/dev/null >/file || echo read-only; test -t 1 && echo terminal; cat /proc/1/comm")
    container = task.spec.container
    container.read_only = container.tty = container.open_stdin = True
    container.init.value = True

    said = await output(executor, task)

    assert said.replace("\r", "").split()[:2] == ["read-only", "terminal"]
    assert "sh" not in said.split()[2]


async def test_mounts_of_each_kind_and_their_options(
    executor: Executor, podman_engine: PodmanEngine, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("from the host\n")
    task = make_task(
        "cat /in/file; touch /in/x || echo refused; cat /proc/self/mounts; trap 'exit 0' TERM; sleep 1000 & wait"
    )
    mounts = task.spec.container.mounts
    mounts.add(type=Mount.BIND, source=str(tmp_path / "in"), target="/in", readonly=True)
    made = mounts.add(type=Mount.BIND, source=str(tmp_path / "made" / "new"), target="/made")
    made.bind_options.createmountpoint = True
    made.bind_options.propagation = Mount.BindOptions.RSLAVE
    tmpfs = mounts.add(type=Mount.TMPFS, target="/scratch")
    tmpfs.tmpfs_options.size_bytes, tmpfs.tmpfs_options.mode = 1 << 20, 0o1770
    tmpfs.tmpfs_options.options = "noexec"
    named = mounts.add(type=Mount.VOLUME, source=f"v{task.id}", target="/named")
    named.volume_options.labels["kind"] = "named"
    named.volume_options.driver_config.name = "local"
    named.volume_options.driver_config.options.update({"type": "tmpfs", "device": "tmpfs", "o": "nodev"})
    own = mounts.add(type=Mount.VOLUME, target="/own")
    own.volume_options.labels["task"] = task.id
    mounts.add(type=Mount.VOLUME, target="/anonymous", readonly=True)

    async with started(executor, task) as controller:
        volumes = json.loads(await asyncio.to_thread(podman_engine.podman, "volume", "ls", "--format", "json"))
        assert isinstance(controller, LogSource)
        said = b"".join([line.data async for line in controller.logs(LogOptions())]).decode()
    left = (await asyncio.to_thread(podman_engine.podman, "volume", "ls", "-q")).split()
    await asyncio.to_thread(podman_engine.podman, "volume", "rm", f"v{task.id}")

    points = {line.split()[1]: line.split() for line in said.splitlines() if line.count(" ") == 5}
    assert said.startswith("from the host\n")
    assert "refused" in said
    assert (tmp_path / "made" / "new").is_dir()
    assert points["/scratch"][2] == "tmpfs"
    assert {"size=1024k", "mode=1770", "noexec"} <= set(points["/scratch"][3].split(","))
    assert points["/named"][2] == "tmpfs"
    assert points["/anonymous"][3].startswith("ro")
    assert {each["Labels"].get("kind") or each["Labels"].get("task") for each in volumes} >= {"named", task.id}
    assert left == [f"v{task.id}"]


async def test_secrets_and_configs_are_files_with_owner_and_mode_in_memory(
    executor: Executor, podman_engine: PodmanEngine, tmp_path: Path
) -> None:
    await executor.configure(Node(id=new_id()))
    task = make_task(
        "cat /run/secrets/password /etc/app.conf; stat -c ' %u %g %a' /run/secrets/password; cat /proc/mounts"
    )
    task.spec.container.env.append("SERVICE={{.Service.Name}}")
    secret, config = Secret(id=new_id()), Config(id=new_id())
    secret.spec.data, config.spec.data = b"hunter2", b'port={{.Task.Slot}} {{env "SERVICE"}}'
    config.spec.templating.name = "golang"
    reference = task.spec.container.secrets.add(secret_id=secret.id, secret_name="password")  # noqa: S106
    reference.file.name, reference.file.mode, reference.file.uid, reference.file.gid = "password", 0o400, "100", "101"
    other = task.spec.container.configs.add(config_id=config.id, config_name="conf")
    other.file.name, other.file.mode = "/etc/app.conf", 0o444
    dependencies = Dependencies(secrets={secret.id: secret}, configs={config.id: config})

    task.spec.container.user = "100"
    said = await output(executor, task, dependencies)

    assert said.startswith("hunter2port=1 {{.Service.Name}} 100 101 400\n")
    mount = next(line.split() for line in said.splitlines() if "/run/secrets/password" in line and line.count(" ") == 5)
    assert mount[2] == "tmpfs"
    assert not await asyncio.to_thread(os.path.ismount, tmp_path / "secrets")


async def test_templates_are_expanded(executor: Executor) -> None:
    await executor.configure(Node(id="n1"))
    task = make_task("hostname; echo $WHO")
    task.spec.container.hostname = "{{.Service.Name}}-{{.Task.Slot}}"
    task.spec.container.env.append("WHO={{.Task.Name}}")

    said = await output(executor, task)

    assert said == f"fields-1\nfields.1.{task.id}\n"


async def test_host_ports_are_published_and_shown(executor: Executor, podman_engine: PodmanEngine) -> None:
    task = make_task("echo hello >/tmp/index.html; httpd -f -p 8080 -h /tmp")
    task.endpoint.ports.add(name="web", target_port=8080, publish_mode=PortConfig.HOST)
    task.endpoint.ports.add(name="dns", target_port=53, published_port=5353, publish_mode=PortConfig.HOST)
    task.endpoint.ports.add(
        name="dns", target_port=53, published_port=5353, publish_mode=PortConfig.HOST, protocol=PortConfig.UDP
    )
    async with started(executor, task) as controller:
        assert isinstance(controller, PortStatuser)
        status = await controller.port_status()

    assert status is not None
    found = {(port.target_port, port.protocol): port.published_port for port in status.ports}
    assert found.pop((8080, PortConfig.TCP)) > 0
    assert found == {(53, PortConfig.TCP): 5353, (53, PortConfig.UDP): 5353}


async def test_a_port_that_is_taken_is_said(executor: Executor) -> None:
    first, second = make_task(), make_task()
    for task in (first, second):
        task.endpoint.ports.add(target_port=80, published_port=8888, publish_mode=PortConfig.HOST)
    async with started(executor, first):
        with pytest.raises(TaskRejectedError, match="8888"):
            async with started(executor, second):
                pass


async def test_the_log_driver_is_the_tasks(executor: Executor, podman_engine: PodmanEngine) -> None:
    task = make_task()
    task.log_driver.name = "json-file"
    task.log_driver.options.update({"max-size": "2m"})
    async with started(executor, task):
        log = (await inspect(podman_engine, task))["HostConfig"]["LogConfig"]

    assert (log["Type"], log["Size"]) == ("k8s-file", "2.097MB")


async def test_an_image_that_is_nowhere_is_refused_in_the_engines_words(executor: Executor) -> None:
    task = make_task()
    task.spec.container.image = "127.0.0.1:1/nosuch:9"

    with pytest.raises(TaskRejectedError, match=r"127\.0\.0\.1:1.*connection refused"):
        async with started(executor, task):
            pass


async def test_a_source_that_is_missing_is_refused(executor: Executor) -> None:
    task = make_task()
    task.spec.container.mounts.add(type=Mount.BIND, source="/no/such/folder", target="/x")

    with pytest.raises(TaskRejectedError, match="bind source path does not exist: /no/such/folder"):
        async with started(executor, task):
            pass


async def test_a_container_removed_by_hand_is_noticed_at_once(executor: Executor, podman_engine: PodmanEngine) -> None:
    task = make_task()
    async with started(executor, task) as controller:
        waiting = asyncio.create_task(controller.wait())
        await asyncio.to_thread(podman_engine.podman, "rm", "--force", "--time=0", f"fields.1.{task.id}")

        async with asyncio.timeout(2):
            with pytest.raises((TaskRejectedError, ExitError)):
                await waiting


async def test_a_command_runs_beside_a_task(executor: Executor) -> None:
    async with started(executor, make_task()) as controller:
        assert isinstance(controller, ExecSource)
        command = ["sh", "-c", "read x; echo got $x $A; echo bad >&2; exit 7"]
        session = await controller.exec(ExecOptions(command=command, env=["A=1"], stdin=True))
        try:
            await session.write(b"this\n")
            said = [piece async for piece in session.output()]
            code = await session.wait()
        finally:
            await session.aclose()
        missing = await controller.exec(ExecOptions(command=["nosuch"]))
        try:
            reason = b"".join([data async for _, data in missing.output()])
            missing_code = await missing.wait()
        finally:
            await missing.aclose()
        await controller.terminate()
        with pytest.raises(ExecutorError, match="running"):
            await controller.exec(ExecOptions(command=["true"]))

    assert (sorted(said), code) == ([(1, b"got this 1\n"), (2, b"bad\n")], 7)
    # Podman starts it first and says then, as a shell does, that there is no such program.
    assert (b"nosuch" in reason, missing_code) == (True, 127)


async def test_what_a_task_uses_is_told(executor: Executor) -> None:
    task = make_task()
    task.spec.resources.limits.memory_bytes = 64 << 20
    async with started(executor, task) as controller:
        assert isinstance(controller, UsageSource)
        used = await controller.usage()

    assert used.cpu_seconds is not None and used.cpu_seconds > 0
    assert used.memory_limit_bytes == 64 << 20
    assert used.memory_bytes is not None and 0 < used.memory_bytes < 64 << 20
    assert used.pids is not None and used.pids >= 2


async def test_the_engine_is_described_as_a_node(executor: Executor) -> None:
    description = await executor.describe()

    plugins = {(plugin.type, plugin.name) for plugin in description.engine.plugins}
    assert description.engine.engine_version
    assert {("Volume", "local"), ("Network", "bridge"), ("Log", "k8s-file")} <= plugins

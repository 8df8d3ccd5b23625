"""Every field of a container spec on a real engine: what the container finds of it, or how it is refused.

Checks that both container engines run; the subclass has a fixture `engine`. An engine that lacks one of the optional
fields lists it in `ContainerEngine.refuses`, and is then held to refusing it by its name.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from swarmcore.api.ids import new_id
from swarmcore.api.objects_pb2 import Config, Node, Secret, Task
from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import Mount, PortConfig, Privileges
from swarmcore.plugin.executor import (
    Dependencies,
    Executor,
    PortStatuser,
    TaskRejectedError,
)
from swarmcore.testing.executor_contract.container_tasks import (
    SERVER,
    ContainerEngine,
    make_task,
    name_of,
    output,
    printed,
    started,
    until_printed,
)
from swarmcore.testing.executor_contract.on_engine import OnEngine
from swarmcore.testing.ports import free_port

MIB: Final = 1 << 20


def _isolation(task: Task) -> None:
    task.spec.container.isolation = ContainerSpec.ISOLATION_HYPERV


def _credential_spec(task: Task) -> None:
    task.spec.container.privileges.credential_spec.file = "x"


def _networks(task: Task) -> None:
    task.spec.networks.add(target="n")


def _ingress(task: Task) -> None:
    task.endpoint.ports.add(target_port=80, published_port=80, publish_mode=PortConfig.INGRESS)


def _mount_type(task: Task) -> None:
    task.spec.container.mounts.add(type=Mount.NPIPE, source="x", target="/x")


def _subpath(task: Task) -> None:
    task.spec.container.mounts.add(type=Mount.VOLUME, source="x", target="/x").volume_options.subpath = "y"


def _recursive(task: Task) -> None:
    mount = task.spec.container.mounts.add(type=Mount.BIND, source="/tmp", target="/x", readonly=True)
    mount.bind_options.readonlyforcerecursive = True


def _hosts(task: Task) -> None:
    task.spec.container.hosts.append("192.0.2.7")


def _seccomp(task: Task) -> None:
    task.spec.container.privileges.seccomp.mode = Privileges.SeccompOpts.CUSTOM
    task.spec.container.privileges.seccomp.profile = b"{"


def _image(task: Task) -> None:
    task.spec.container.image = ""


def _start_interval(task: Task) -> None:
    task.spec.container.healthcheck.test.extend(["CMD", "true"])
    task.spec.container.healthcheck.start_interval.seconds = 1


def _selinux(task: Task) -> None:
    task.spec.container.privileges.selinux_context.type = "container_t"


def _anonymous_readonly(task: Task) -> None:
    task.spec.container.mounts.add(type=Mount.VOLUME, target="/x", readonly=True)


def _create_mount_point(task: Task) -> None:
    mount = task.spec.container.mounts.add(type=Mount.BIND, source="/tmp/swarmcore-nosuch", target="/x")
    mount.bind_options.createmountpoint = True


def _tmpfs_options(task: Task) -> None:
    task.spec.container.mounts.add(type=Mount.TMPFS, target="/x").tmpfs_options.options = "noexec"


def _swappiness(task: Task) -> None:
    task.spec.resources.memory_swappiness.value = 10


def _cpus(task: Task) -> None:
    task.spec.resources.limits.nano_cpus = 500_000_000


def _memory(task: Task) -> None:
    task.spec.resources.limits.memory_bytes = 64 * MIB


def _reserved_memory(task: Task) -> None:
    task.spec.resources.reservations.memory_bytes = 64 * MIB


def _swap(task: Task) -> None:
    task.spec.resources.swap_bytes.value = -1


def _pids(task: Task) -> None:
    task.spec.container.pidsLimit = 77


def _oom_score(task: Task) -> None:
    task.spec.container.oom_score_adj = -5


REFUSED: Final[dict[str, Callable[[Task], None]]] = {
    "container.isolation": _isolation,
    "container.privileges.credential_spec": _credential_spec,
    "networks": _networks,
    "endpoint.ports": _ingress,
    "container.mounts: type NPIPE": _mount_type,
    "container.hosts": _hosts,
    "container.privileges.seccomp.profile": _seccomp,
    "container.image": _image,
}
"""By the words that each is refused with; no engine here can honour them."""
OPTIONAL: Final[dict[str, Callable[[Task], None]]] = {
    "resources.limits.nano_cpus": _cpus,
    "resources.limits.memory_bytes": _memory,
    "resources.reservations.memory_bytes": _reserved_memory,
    "resources.swap_bytes": _swap,
    "container.pidsLimit": _pids,
    "container.oom_score_adj": _oom_score,
    "subpath": _subpath,
    "readonlyforcerecursive": _recursive,
    "start_interval": _start_interval,
    "selinux_context": _selinux,
    "container.mounts.readonly": _anonymous_readonly,
    "createmountpoint": _create_mount_point,
    "tmpfs_options.options": _tmpfs_options,
    "memory_swappiness": _swappiness,
}
"""What some engines honour."""


class ContainerFields(OnEngine):
    """The fields, from within the container."""

    async def test_a_container_has_swarmkits_name_and_labels(self, executor: Executor, engine: ContainerEngine) -> None:
        task = make_task()
        task.spec.container.labels["a"] = "1"
        async with started(executor, task):
            labels = (await engine.inspect(task))["Config"]["Labels"]

        assert labels["a"] == "1"
        assert labels["com.docker.swarm.task.id"] == task.id
        assert labels["com.docker.swarm.service.name"] == "fields"
        assert labels["com.docker.swarm.task"] == ""

    async def test_what_a_program_sees_of_itself(self, executor: Executor) -> None:
        task = make_task(
            'pwd; id -u; id -g; id -G; hostname; echo "$A|$B|$DOCKER_RESOURCE_GPU|$1"; cat /proc/self/oom_score_adj'
        )
        container = task.spec.container
        container.args.extend(["name", "argument"])
        container.dir, container.user, container.hostname = "/var", "1000:1001", "box"
        container.groups.extend(["44", "45"])
        container.env.extend(["A=1=2", "B="])
        container.oom_score_adj = 300
        named = task.assigned_generic_resources.add().named_resource_spec
        named.kind, named.value = "gpu", "g1"

        lines = (await output(executor, task)).splitlines()

        assert lines == ["/var", "1000", "1001", "1001 44 45", "box", "1=2||g1|argument", "300"]

    async def test_ulimits_hold_for_the_program(self, executor: Executor) -> None:
        task = make_task("ulimit -n; ulimit -Hn")
        task.spec.container.ulimits.add(name="nofile", soft=100, hard=200)
        # Where the task names any, Podman raises this one as far as it can; not everywhere it may.
        task.spec.container.ulimits.add(name="nproc", soft=1000, hard=1000)

        assert (await output(executor, task)).split() == ["100", "200"]

    async def test_capabilities_sysctls_and_privileges(self, executor: Executor) -> None:
        task = make_task("grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/sys/net/ipv4/ip_forward")
        container = task.spec.container
        container.capability_add.append("CAP_NET_ADMIN")
        container.capability_drop.append("CAP_CHOWN")
        container.sysctls["net.ipv4.ip_forward"] = "1"
        container.privileges.no_new_privileges = True
        container.privileges.seccomp.mode = Privileges.SeccompOpts.UNCONFINED
        container.privileges.apparmor.mode = Privileges.AppArmorOpts.DISABLED
        container.privileges.selinux_context.disable = True

        lines = (await output(executor, task)).splitlines()

        found = dict(line.split(":\t") for line in lines if ":" in line)
        assert int(found["CapBnd"], 16) & 1 == 0
        assert int(found["CapBnd"], 16) >> 12 & 1 == 1
        assert (found["NoNewPrivs"], found["Seccomp"], lines[-1]) == ("1", "0", "1")

    async def test_a_seccomp_profile_of_the_tasks_own_holds(self, executor: Executor) -> None:
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

    async def test_names_are_looked_up_as_the_task_says(self, executor: Executor) -> None:
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

    async def test_a_read_only_container_with_a_terminal_and_init(self, executor: Executor) -> None:
        task = make_task("echo x 2>/dev/null >/file || echo read-only; test -t 1 && echo terminal; cat /proc/1/comm")
        container = task.spec.container
        container.read_only = container.tty = container.open_stdin = True
        container.init.value = True

        said = await output(executor, task)

        assert said.replace("\r", "").split()[:2] == ["read-only", "terminal"]
        assert said.split()[2] != "sh"

    async def test_the_signal_to_stop_with_is_the_tasks(self, executor: Executor) -> None:
        task = make_task("trap 'echo usr1; exit 0' USR1; echo ready; while :; do sleep 0.05; done")
        task.spec.container.stop_signal = "SIGUSR1"
        async with started(executor, task) as controller:
            await until_printed(controller, "ready")
            await controller.shutdown()
            said = await printed(controller)

        assert said.split() == ["ready", "usr1"]

    async def test_mounts_of_each_kind_and_their_options(
        self, executor: Executor, engine: ContainerEngine, tmp_path: Path
    ) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "file").write_text("from the host\n")
        task = make_task(f"cat /in/file; touch /in/x || echo refused; cat /proc/self/mounts; echo all-said; {SERVER}")
        mounts = task.spec.container.mounts
        bind = mounts.add(type=Mount.BIND, source=str(tmp_path / "in"), target="/in", readonly=True)
        bind.bind_options.propagation = Mount.BindOptions.PRIVATE
        tmpfs = mounts.add(type=Mount.TMPFS, target="/scratch")
        tmpfs.tmpfs_options.size_bytes, tmpfs.tmpfs_options.mode = MIB, 0o1770
        named = mounts.add(type=Mount.VOLUME, source=f"v{task.id}", target="/named")
        named.volume_options.labels["kind"] = "named"
        named.volume_options.driver_config.name = "local"
        named.volume_options.driver_config.options.update({"type": "tmpfs", "device": "tmpfs", "o": "nodev"})
        own = mounts.add(type=Mount.VOLUME, target="/own")
        own.volume_options.labels["task"] = task.id
        mounts.add(type=Mount.VOLUME, source=f"v{task.id}", target="/again", readonly=True)

        async def volumes(label: str) -> list[str]:
            return (await engine.run("volume", "ls", "-q", "--filter", f"label={label}")).split()

        async with started(executor, task) as controller:
            labelled = [len(await volumes(label)) for label in ("kind=named", f"task={task.id}")]
            said = await until_printed(controller, "all-said")
        left = [await volumes(label) for label in ("kind=named", f"task={task.id}")]
        await engine.run("volume", "rm", f"v{task.id}")

        points = {line.split()[1]: line.split() for line in said.splitlines() if line.count(" ") == 5}
        assert "from the host\n" in said
        assert "refused" in said
        assert points["/scratch"][2] == "tmpfs"
        assert {"size=1024k", "mode=1770"} <= set(points["/scratch"][3].split(","))
        assert points["/named"][2] == "tmpfs"
        assert points["/again"][3].startswith("ro")
        assert labelled == [1, 1]
        assert left == [[f"v{task.id}"], []]

    async def test_secrets_and_configs_are_files_with_a_mode_in_memory(
        self, executor: Executor, engine: ContainerEngine, tmp_path: Path
    ) -> None:
        await executor.configure(Node(id=new_id()))
        task = make_task(
            "cat /run/secrets/password /etc/app.conf; stat -c ' %u %g %a' /run/secrets/password; cat /proc/mounts;"
            f"echo all-said; {SERVER}"
        )
        task.spec.container.env.append("SERVICE={{.Service.Name}}")
        secret, config = Secret(id=new_id()), Config(id=new_id())
        secret.spec.data, config.spec.data = b"hunter2", b'port={{.Task.Slot}} {{env "SERVICE"}}'
        config.spec.templating.name = "golang"
        reference = task.spec.container.secrets.add(secret_id=secret.id, secret_name="password")  # noqa: S106
        reference.file.name, reference.file.mode = "password", 0o440
        other = task.spec.container.configs.add(config_id=config.id, config_name="conf")
        other.file.name, other.file.mode = "/etc/app.conf", 0o444
        dependencies = Dependencies(secrets={secret.id: secret}, configs={config.id: config})

        async with started(executor, task, dependencies) as controller:
            said = await until_printed(controller, "all-said")
            shown = await engine.run("inspect", name_of(task))

        assert said.startswith("hunter2port=1 {{.Service.Name}} 0 0 440\n")
        mounts = [
            line.split() for line in said.splitlines() if "/run/secrets/password" in line and line.count(" ") == 5
        ]
        assert mounts[0][2] == "tmpfs"
        assert "hunter2" not in shown
        assert not await asyncio.to_thread(os.path.ismount, tmp_path / "secrets")

    async def test_templates_are_expanded(self, executor: Executor) -> None:
        await executor.configure(Node(id="n1"))
        task = make_task("hostname; echo $WHO; grep -c /at-1 /proc/self/mounts")
        task.spec.container.hostname = "{{.Service.Name}}-{{.Task.Slot}}"
        task.spec.container.env.append("WHO={{.Task.Name}}")
        task.spec.container.mounts.add(type=Mount.VOLUME, target="/at-{{.Task.Slot}}")

        said = await output(executor, task)

        assert said == f"fields-1\nfields.1.{task.id}\n1\n"

    async def test_host_ports_are_published_and_shown(self, executor: Executor, engine: ContainerEngine) -> None:
        task = make_task("echo hello >/tmp/index.html; httpd -f -p 8080 -h /tmp")
        free = free_port(engine.namespace)
        task.endpoint.ports.add(name="web", target_port=8080, publish_mode=PortConfig.HOST)
        task.endpoint.ports.add(name="dns", target_port=53, published_port=free, publish_mode=PortConfig.HOST)
        task.endpoint.ports.add(
            name="dns", target_port=53, published_port=free, publish_mode=PortConfig.HOST, protocol=PortConfig.UDP
        )
        async with started(executor, task) as controller:
            assert isinstance(controller, PortStatuser)
            status = await controller.port_status()

        assert status is not None
        found = {(port.target_port, port.protocol): port.published_port for port in status.ports}
        assert found.pop((8080, PortConfig.TCP)) > 0
        assert found == {(53, PortConfig.TCP): free, (53, PortConfig.UDP): free}

    async def test_one_port_is_published_as_two(self, executor: Executor, engine: ContainerEngine) -> None:
        task = make_task("echo hello >/tmp/index.html; httpd -f -p 8080 -h /tmp")
        free = free_port(engine.namespace)
        task.endpoint.ports.add(name="any", target_port=8080, publish_mode=PortConfig.HOST)
        task.endpoint.ports.add(name="own", target_port=8080, published_port=free, publish_mode=PortConfig.HOST)
        async with started(executor, task) as controller:
            assert isinstance(controller, PortStatuser)
            status = await controller.port_status()

        assert status is not None
        names = {port.name: port.published_port for port in status.ports}
        assert names.keys() == {"any", "own"}
        assert names["own"] == free != names["any"] > 0

    async def test_docker_s_default_log_driver_and_its_options_are_known(self, executor: Executor) -> None:
        task = make_task("echo said")
        task.log_driver.name = "json-file"
        task.log_driver.options.update({"max-size": "2m"})

        assert await output(executor, task) == "said\n"

    @pytest.mark.parametrize("words", list(REFUSED))
    async def test_a_field_that_no_engine_honours_is_refused_by_its_name(self, executor: Executor, words: str) -> None:
        task = make_task()
        REFUSED[words](task)

        with pytest.raises(TaskRejectedError, match=words):
            async with started(executor, task):
                pass

    @pytest.mark.parametrize("field", list(OPTIONAL))
    async def test_a_field_that_this_engine_can_not_honour_is_refused_by_its_name(
        self, executor: Executor, engine: ContainerEngine, field: str
    ) -> None:
        task = make_task()
        OPTIONAL[field](task)
        refusal = ""

        try:
            await executor.controller(task, Dependencies())
        except TaskRejectedError as error:
            refusal = str(error)

        assert (field in refusal) == (field in engine.refuses), refusal or f"{field} is taken"

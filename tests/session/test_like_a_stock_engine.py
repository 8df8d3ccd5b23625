"""A stock Docker Engine as the judge of docker-executor: the same task on both, and `docker inspect` of both compared.

A global service asks for everything at once that both can do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from conftest import require
from swarmcore.api.control_pb2 import CreateConfigRequest, CreateServiceRequest
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.specs_pb2 import ConfigSpec, ServiceSpec
from swarmcore.api.types_pb2 import Annotations, Driver, FileTarget, Mount, PortConfig
from swarmcore.testing import engines
from swarmcore.testing.cluster import wait_until
from swarmcore.testing.three_hosts import Container, Swarm, engine, three_hosts

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("like a stock engine")]

IMAGE = "redis:3.0.5"
FILES = ("/run/secrets/password", "/etc/settings", "/etc/rendered")
OWN_TO_EACH = {
    # Ids, addresses and times of the one container.
    *("Id", "Created", "Name", "HostnamePath", "HostsPath", "LogPath", "ResolvConfPath", "Image", "State"),
    *("GraphDriver", "NetworkSettings"),
    # Where secrets and configs come from: each engine has its own way, and tests compare what is in the container.
    "Mounts",
}
OWN_TO_EACH_HOST_CONFIG = {
    # Engine 20.10's own worker leaves these out of its request.
    *("MemoryReservation", "OomScoreAdj"),
    # What the engine fills in where the request has nothing.
    *("RestartPolicy", "Isolation", "SecurityOpt"),
}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    require(engines.missing_engine() or engines.missing_namespaces())
    with three_hosts(IMAGE) as made:
        yield made


RENDERED = b'{{.Service.Name}} {{.Task.Slot}} {{secret "password"}} {{config "/etc/settings"}} {{env "A"}}\n'
"""Not the node's host name, of which engine 20.10 knows nothing in files, though it does in containers."""


def everything(secret_id: str, config_id: str, rendered_id: str) -> ServiceSpec:
    """A spec with every field that an engine of this age can honour."""
    spec = ServiceSpec()
    spec.annotations.name = "all"
    spec.annotations.labels["tier"] = "front"
    getattr(spec, "global").SetInParent()
    container = spec.task.container
    container.image = IMAGE
    container.labels["a"] = "b"
    container.command.extend(["sh", "-c"])
    container.args.append("trap 'exit 0' USR1; sleep 100000 & wait")
    container.hostname = "h-{{.Service.Name}}"
    container.env.extend(["A=1", "S={{.Service.Name}}", 'L={{index .Service.Labels "tier"}}', "T={{.Task.Slot}}"])
    container.env.extend(["H={{.Node.Hostname}}", "P={{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}"])
    container.dir, container.user = "/tmp", "65534:65534"
    container.groups.append("100")
    container.open_stdin = container.read_only = True
    container.stop_signal = "SIGUSR1"
    container.stop_grace_period.seconds = 7
    tmpfs = Mount.TmpfsOptions(size_bytes=1 << 20, mode=0o700)
    container.mounts.add(type=Mount.TMPFS, target="/t", tmpfs_options=tmpfs)
    container.mounts.add(type=Mount.BIND, source="/tmp", target="/b", readonly=True)
    options = Mount.VolumeOptions(nocopy=True, labels={"of": "{{.Service.Name}}"})
    container.mounts.add(type=Mount.VOLUME, source="v-{{.Service.Name}}", target="/v", volume_options=options)
    container.mounts.add(type=Mount.VOLUME, target="/anonymous")
    secret = container.secrets.add(secret_id=secret_id, secret_name="password")  # noqa: S106
    secret.file.CopyFrom(FileTarget(name="password", uid="65534", gid="100", mode=0o440))
    config = container.configs.add(config_id=config_id, config_name="settings")
    config.file.CopyFrom(FileTarget(name="/etc/settings", uid="0", gid="65534", mode=0o644))
    rendered = container.configs.add(config_id=rendered_id, config_name="rendered")
    rendered.file.CopyFrom(FileTarget(name="/etc/rendered", uid="65534", gid="0", mode=0o444))
    container.hosts.append("1.2.3.4 backend")
    container.dns_config.nameservers.append("9.9.9.9")
    container.dns_config.search.append("example.org")
    container.dns_config.options.append("ndots:2")
    health = container.healthcheck
    health.test.extend(["CMD", "true"])
    health.interval.seconds, health.timeout.seconds, health.retries = 1, 3, 2
    container.capability_add.append("CAP_NET_ADMIN")
    container.capability_drop.append("CAP_MKNOD")
    container.sysctls["net.ipv4.ip_local_port_range"] = "2000 3000"
    container.ulimits.add(name="nofile", soft=100, hard=200)
    container.pidsLimit = 50
    container.init.value = False
    limits, reservations = spec.task.resources.limits, spec.task.resources.reservations
    limits.nano_cpus, limits.memory_bytes = 500_000_000, 64 << 20
    reservations.nano_cpus, reservations.memory_bytes = 100_000_000, 32 << 20
    spec.task.log_driver.name = "json-file"
    spec.task.log_driver.options["max-size"] = "1m"
    spec.endpoint.ports.add(name="web", target_port=80, published_port=8080, publish_mode=PortConfig.HOST)
    return spec


@pytest.fixture(scope="module")
def running(swarm: Swarm) -> dict[str, Container]:
    secret = swarm.ctl("secret", "create", "password", stdin=b"correct horse").strip()
    config = swarm.ctl("config", "create", "settings", stdin=b"maxmemory 1gb").strip()
    template = ConfigSpec(annotations=Annotations(name="rendered"), data=RENDERED, templating=Driver(name="golang"))
    with grpc.insecure_channel(f"unix:{swarm.manager.socket}") as channel:
        control = ControlStub(channel)
        rendered = control.CreateConfig(CreateConfigRequest(spec=template)).config.id
        control.CreateService(CreateServiceRequest(spec=everything(secret, config, rendered)))
    return swarm.wait_global("all")


def inspected(swarm: Swarm, container: Container) -> dict[str, Any]:
    (host,) = [host for host in swarm.hosts if host.hostname == container.host]
    found: dict[str, Any] = json.loads(engine(host).docker("inspect", container.id))[0]
    return found


def comparable(swarm: Swarm, container: Container) -> dict[str, Any]:
    """What `docker inspect` says without what differs by nature; names and ids of node and task as words."""
    found = {key: value for key, value in inspected(swarm, container).items() if key not in OWN_TO_EACH}
    host = found["HostConfig"]
    for key in OWN_TO_EACH_HOST_CONFIG:
        host.pop(key)
    host["Mounts"] = [mount for mount in host["Mounts"] if mount["Target"] not in FILES]
    text = json.dumps(found, sort_keys=True)
    node = swarm.nodes()[container.host]["ID"]
    for own, word in ((container.task, "TASK"), (node, "NODE"), (container.host, "HOST")):
        text = text.replace(own, word)
    whole: dict[str, Any] = json.loads(text)
    return whole


def test_the_engine_was_asked_for_the_same_container(swarm: Swarm, running: dict[str, Container]) -> None:
    stock = comparable(swarm, running["docker3"])

    assert comparable(swarm, running["docker1"]) == stock
    assert comparable(swarm, running["docker2"]) == stock


def test_the_container_looks_the_same_from_inside(swarm: Swarm, running: dict[str, Container]) -> None:
    script = (
        "hostname; env | grep -v ^HOSTNAME= | sort; id; grep -v ^172 /etc/hosts | sort; cat /etc/resolv.conf; "
        f"ls -ln {' '.join(FILES)} | cut -c1-45; cat {' '.join(FILES)}; touch /t/x && ls -ld /t | cut -c1-10"
    )
    seen = {}
    for host in swarm.hosts:
        told = engine(host).docker("exec", running[host.hostname].id, "sh", "-c", script, check=False)
        node = swarm.nodes()[host.hostname]["ID"]
        seen[host.hostname] = told.replace(node, "NODE").replace(host.hostname, "HOST")

    assert "all NODE correct horse maxmemory 1gb 1\n" in seen["docker3"]
    assert seen["docker1"] == seen["docker2"] == seen["docker3"]


def test_the_published_port_is_the_hosts_and_the_manager_shows_it(swarm: Swarm, running: dict[str, Container]) -> None:
    for host in swarm.hosts:
        container = running[host.hostname]
        assert engine(host).docker("port", container.id, "80/tcp").split()[0] == "0.0.0.0:8080"

        def shown(task: str = container.task) -> None:
            assert "0.0.0.0:8080->80/tcp" in swarm.ctl("task", "inspect", task)

        wait_until(shown)


def test_both_are_running_once_they_are_healthy_and_stop_as_asked(swarm: Swarm, running: dict[str, Container]) -> None:
    def all_running() -> None:
        rows = swarm.ctl.table("service", "inspect", "all")
        assert sorted((row["Node"], row["Last State"].split()[0]) for row in rows) == [
            ("docker1", "RUNNING"),
            ("docker2", "RUNNING"),
            ("docker3", "RUNNING"),
        ]

    wait_until(all_running)
    assert {inspected(swarm, each)["State"]["Health"]["Status"] for each in running.values()} == {"healthy"}

    swarm.ctl("service", "remove", "all")
    swarm.wait_gone("all", seconds=5)


def test_a_stock_engine_is_known_as_one_and_gets_no_processes(swarm: Swarm) -> None:
    assert "whatever a stock engine can do" in swarm.ctl("node", "inspect", "docker3")
    swarm.ctl("service", "create", "--name", "p", "--runtime", "process", "--command", "true")

    def waits() -> None:
        assert "no suitable node (no executor for 'process' tasks on 3 nodes)" in swarm.ctl("service", "inspect", "p")

    wait_until(waits)
    swarm.ctl("service", "remove", "p")

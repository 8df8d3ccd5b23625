"""From a task to the engine's create request. Pure; what the engine can't honour is refused by its field's name.

Source: Docker Engine API, `POST /containers/create`.
"""

from __future__ import annotations

from typing import Any

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import HealthConfig, Mount, PortConfig, Privileges
from swarmcore.plugin.containers import (
    environment,
    extra_hosts,
    labels,
    nanoseconds,
    refuse_meaningless,
    seccomp_profile,
)
from swarmcore.plugin.executor import TaskRejectedError
from swarmcore_docker_executor.host import Host

_PROTOCOLS = {PortConfig.TCP: "tcp", PortConfig.UDP: "udp", PortConfig.SCTP: "sctp"}
_MOUNT_TYPES = {Mount.BIND: "bind", Mount.VOLUME: "volume", Mount.TMPFS: "tmpfs"}
_PROPAGATIONS = {
    Mount.BindOptions.RPRIVATE: "rprivate",
    Mount.BindOptions.PRIVATE: "private",
    Mount.BindOptions.RSHARED: "rshared",
    Mount.BindOptions.SHARED: "shared",
    Mount.BindOptions.RSLAVE: "rslave",
    Mount.BindOptions.SLAVE: "slave",
}
_CONSISTENCIES = {
    Mount.CONSISTENT: "consistent",
    Mount.CACHED: "cached",
    Mount.DELEGATED: "delegated",
}


MIN_RESERVATION = 6 * 1024 * 1024
"""Bytes; the engine's own rule."""
_ANYTHING = Host()


def create_request(task: Task, *, api: tuple[int, int], host: Host = _ANYTHING) -> dict[str, Any]:
    """The body of the create request, without the mounts that carry secrets and configs.

    Raises TaskRejectedError with the name of a field that an engine of this API version can't honour on its host.
    """
    refuse_unsupported(task, api, host)
    spec = task.spec.container
    request: dict[str, Any] = {
        "Image": spec.image,
        "Labels": labels(task),
        "Env": environment(task),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "HostConfig": _host_config(task),
        "ExposedPorts": {key: {} for key, _ in _ports(task)},
        # Without a network of its own each container joins the engine's default bridge.
        "NetworkingConfig": {"EndpointsConfig": {}},
    }
    if spec.command:
        request["Entrypoint"] = list(spec.command)
    if spec.args:
        request["Cmd"] = list(spec.args)
    for key, value in (
        ("WorkingDir", spec.dir),
        ("User", spec.user),
        ("Hostname", spec.hostname),
        ("StopSignal", spec.stop_signal),
    ):
        if value:
            request[key] = value
    if spec.HasField("healthcheck"):
        request["Healthcheck"] = _healthcheck(spec.healthcheck)
    return request


def refuse_unsupported(task: Task, api: tuple[int, int], host: Host = _ANYTHING) -> None:
    """Raise TaskRejectedError for the first field that can't be honoured here."""
    if task.spec.WhichOneof("runtime") != "container":
        raise TaskRejectedError("docker-executor runs tasks of the runtime 'container' only")
    spec = task.spec.container
    if not spec.image:
        raise TaskRejectedError("container.image: must not be empty")
    if task.networks or task.spec.networks:
        raise TaskRejectedError("networks: not supported by docker-executor; remove them from the service")
    if any(port.publish_mode == PortConfig.INGRESS for port in task.endpoint.ports):
        raise TaskRejectedError("endpoint.ports: publish mode 'ingress' is not supported here; use mode 'host'")
    if spec.isolation != ContainerSpec.ISOLATION_DEFAULT:
        raise TaskRejectedError("container.isolation: only Windows knows it")
    if spec.privileges.HasField("credential_spec"):
        raise TaskRejectedError("container.privileges.credential_spec: only Windows knows it")
    refuse_meaningless(task)
    if spec.healthcheck.HasField("start_interval") and api < (1, 44):
        raise TaskRejectedError(f"container.healthcheck.start_interval: needs engine API 1.44, this is {_text(api)}")
    for line in spec.hosts:
        extra_hosts(line)
    for mount in spec.mounts:
        _refuse_mount(mount, api)
    _refuse_privileges(spec.privileges, host)
    _refuse_limits(task, host)


def _refuse_mount(mount: Mount, api: tuple[int, int]) -> None:
    if mount.type not in _MOUNT_TYPES:
        raise TaskRejectedError(f"container.mounts: type {Mount.Type.Name(mount.type)} is not supported here")
    if mount.tmpfs_options.options:
        raise TaskRejectedError("container.mounts.tmpfs_options.options: not supported by this engine's API")
    if mount.type == Mount.VOLUME and mount.readonly and not mount.source:
        raise TaskRejectedError("container.mounts.readonly: the engine takes it for a volume with a name only")
    bind, volume = mount.bind_options, mount.volume_options
    for name, is_set, lowest in (
        ("volume_options.subpath", bool(volume.subpath), (1, 45)),
        ("bind_options.readonlynonrecursive", bind.readonlynonrecursive, (1, 44)),
        ("bind_options.readonlyforcerecursive", bind.readonlyforcerecursive, (1, 44)),
        ("bind_options.createmountpoint", bind.createmountpoint, (1, 42)),
    ):
        if is_set and api < lowest:
            raise TaskRejectedError(f"container.mounts.{name}: needs engine API {_text(lowest)}, this is {_text(api)}")


def _refuse_privileges(privileges: Privileges, host: Host) -> None:
    selinux = privileges.selinux_context
    if (selinux.user or selinux.role or selinux.type or selinux.level) and not host.has_selinux:
        raise TaskRejectedError("container.privileges.selinux_context: this engine has no SELinux")
    if privileges.seccomp.mode == Privileges.SeccompOpts.CUSTOM:
        if not host.has_seccomp:
            raise TaskRejectedError("container.privileges.seccomp: this engine has no seccomp")
        seccomp_profile(privileges.seccomp.profile)


def _refuse_limits(task: Task, host: Host) -> None:
    """What the engine would leave out with a warning, or refuse without naming the field."""
    needs = task.spec.resources
    for field, is_set in (
        ("resources.limits.memory_bytes", needs.limits.memory_bytes > 0),
        ("resources.swap_bytes", needs.HasField("swap_bytes")),
        ("resources.limits.nano_cpus", needs.limits.nano_cpus > 0),
        ("container.pidsLimit", task.spec.container.pidsLimit > 0),
    ):
        if is_set and field in host.missing_limits:
            raise TaskRejectedError(f"{field}: the engine's host has no such limit")
    if needs.HasField("swap_bytes") and needs.swap_bytes.value >= 0 and not needs.limits.memory_bytes:
        raise TaskRejectedError("resources.swap_bytes: needs resources.limits.memory_bytes")
    if needs.HasField("memory_swappiness") and not host.has_swappiness:
        raise TaskRejectedError("resources.memory_swappiness: cgroups v2 do not know it")


def _text(api: tuple[int, int]) -> str:
    return f"{api[0]}.{api[1]}"


def _host_config(task: Task) -> dict[str, Any]:
    spec = task.spec.container
    config: dict[str, Any] = {
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "PortBindings": _port_bindings(task),
        "ReadonlyRootfs": spec.read_only,
        "GroupAdd": list(spec.groups),
        "CapAdd": list(spec.capability_add),
        "CapDrop": list(spec.capability_drop),
        "Sysctls": dict(spec.sysctls),
        "Ulimits": [{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.ulimits],
        "ExtraHosts": [extra for line in spec.hosts for extra in extra_hosts(line)],
        "SecurityOpt": _security_options(spec.privileges),
        "RestartPolicy": {"Name": "no"},
        **_resources(task),
    }
    if spec.HasField("init"):
        config["Init"] = spec.init.value
    if spec.oom_score_adj:
        config["OomScoreAdj"] = spec.oom_score_adj
    if spec.HasField("dns_config"):
        dns = spec.dns_config
        config |= {"Dns": list(dns.nameservers), "DnsSearch": list(dns.search), "DnsOptions": list(dns.options)}
    if task.HasField("log_driver") and (task.log_driver.name or task.log_driver.options):
        # Without a name the options are for the engine's own driver.
        config["LogConfig"] = {"Type": task.log_driver.name, "Config": dict(task.log_driver.options)}
    return config


def _resources(task: Task) -> dict[str, Any]:
    spec, needs = task.spec.container, task.spec.resources
    found: dict[str, Any] = {}
    if needs.limits.memory_bytes:
        found["Memory"] = needs.limits.memory_bytes
    if needs.limits.nano_cpus:
        found["NanoCpus"] = needs.limits.nano_cpus
    if _is_soft_limit(needs.reservations.memory_bytes, needs.limits.memory_bytes):
        found["MemoryReservation"] = needs.reservations.memory_bytes
    if needs.HasField("swap_bytes"):
        swap = needs.swap_bytes.value
        found["MemorySwap"] = swap if swap < 0 else needs.limits.memory_bytes + swap
    if needs.HasField("memory_swappiness"):
        found["MemorySwappiness"] = needs.memory_swappiness.value
    if spec.pidsLimit > 0:
        found["PidsLimit"] = spec.pidsLimit
    return found


def _is_soft_limit(reserved: int, limit: int) -> bool:
    """Whether the engine takes what was reserved when the task was placed as a soft limit too: it refuses others."""
    return reserved >= MIN_RESERVATION and (not limit or reserved <= limit)


def _ports(task: Task) -> list[tuple[str, int]]:
    return [
        (f"{port.target_port}/{_PROTOCOLS[port.protocol]}", port.published_port)
        for port in task.endpoint.ports
        if port.publish_mode == PortConfig.HOST
    ]


def _port_bindings(task: Task) -> dict[str, list[dict[str, str]]]:
    """One port of a container may be published as several of the host."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for key, port in _ports(task):
        bindings.setdefault(key, []).append({"HostPort": str(port) if port else ""})
    return bindings


def _mount(mount: Mount) -> dict[str, Any]:
    request: dict[str, Any] = {
        "Type": _MOUNT_TYPES[mount.type],
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.readonly,
    }
    if mount.consistency in _CONSISTENCIES:
        request["Consistency"] = _CONSISTENCIES[mount.consistency]
    if mount.HasField("bind_options"):
        bind = mount.bind_options
        request["BindOptions"] = {
            "Propagation": _PROPAGATIONS[bind.propagation],
            "NonRecursive": bind.nonrecursive,
            "CreateMountpoint": bind.createmountpoint,
            "ReadOnlyNonRecursive": bind.readonlynonrecursive,
            "ReadOnlyForceRecursive": bind.readonlyforcerecursive,
        }
    if mount.HasField("volume_options"):
        volume = mount.volume_options
        request["VolumeOptions"] = {"NoCopy": volume.nocopy, "Labels": dict(volume.labels)}
        if volume.HasField("driver_config"):
            driver = volume.driver_config
            request["VolumeOptions"]["DriverConfig"] = {"Name": driver.name, "Options": dict(driver.options)}
        if volume.subpath:
            request["VolumeOptions"]["Subpath"] = volume.subpath
    if mount.HasField("tmpfs_options"):
        request["TmpfsOptions"] = {"SizeBytes": mount.tmpfs_options.size_bytes, "Mode": mount.tmpfs_options.mode}
    return request


def _security_options(privileges: Privileges) -> list[str]:
    options = []
    if privileges.HasField("selinux_context"):
        selinux = privileges.selinux_context
        if selinux.disable:
            options.append("label=disable")
        for key in ("user", "role", "type", "level"):
            if value := getattr(selinux, key):
                options.append(f"label={key}:{value}")
    if privileges.seccomp.mode == Privileges.SeccompOpts.UNCONFINED:
        options.append("seccomp=unconfined")
    elif privileges.seccomp.mode == Privileges.SeccompOpts.CUSTOM:
        options.append(f"seccomp={seccomp_profile(privileges.seccomp.profile)}")
    if privileges.apparmor.mode == Privileges.AppArmorOpts.DISABLED:
        options.append("apparmor=unconfined")
    if privileges.no_new_privileges:
        options.append("no-new-privileges=true")
    return options


def _healthcheck(health: HealthConfig) -> dict[str, Any]:
    request: dict[str, Any] = {"Test": list(health.test), "Retries": health.retries}
    for key, name in (
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("StartPeriod", "start_period"),
        ("StartInterval", "start_interval"),
    ):
        if health.HasField(name):  # type: ignore[arg-type]
            request[key] = nanoseconds(getattr(health, name))
    return request

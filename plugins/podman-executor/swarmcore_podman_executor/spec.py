"""From a task to the engine's create request. Pure; what the engine can't honour is refused by its field's name.

Source: Podman's API, `POST /libpod/containers/create` (a SpecGenerator); mounts and limits are those of the OCI runtime
specification.
"""

from __future__ import annotations

import math
from typing import Any, Final

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import Mount, PortConfig, Privileges
from swarmcore.plugin.containers import (
    container_name,
    environment,
    extra_hosts,
    labels,
    refuse_meaningless,
    seccomp_profile,
    stop_grace,
)
from swarmcore.plugin.executor import TaskRejectedError
from swarmcore_podman_executor.differences import signal_number
from swarmcore_podman_executor.host import Host

CPU_PERIOD_MICROSECONDS: Final = 100_000
UNSETS_VARIABLES: Final = (4, 2)
"""The first version that can keep the image's environment from a container."""
LOG_OPTIONS: Final = {"k8s-file": frozenset({"max-size", "path"}), "journald": frozenset({"tag"})}
"""What each driver takes; any other takes none."""
LOG_DRIVERS: Final = {"json-file": "k8s-file"}
"""Docker's default is known to Podman under this name, and written in Podman's own format."""
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TMPFS_OPTIONS: Final = frozenset({"exec", "noexec", "suid", "nosuid", "dev", "nodev", "rw", "ro"})
_PROTOCOLS: Final = {PortConfig.TCP: "tcp", PortConfig.UDP: "udp", PortConfig.SCTP: "sctp"}
_PROPAGATIONS: Final = {
    Mount.BindOptions.RPRIVATE: "rprivate",
    Mount.BindOptions.PRIVATE: "private",
    Mount.BindOptions.RSHARED: "rshared",
    Mount.BindOptions.SHARED: "shared",
    Mount.BindOptions.RSLAVE: "rslave",
    Mount.BindOptions.SLAVE: "slave",
}


def refuse_unsupported(task: Task, host: Host) -> None:
    """Raise TaskRejectedError for the first field that can't be honoured here."""
    if task.spec.WhichOneof("runtime") != "container":
        raise TaskRejectedError("podman-executor runs tasks of the runtime 'container' only")
    spec = task.spec.container
    if not spec.image:
        raise TaskRejectedError("container.image: must not be empty")
    if task.networks or task.spec.networks:
        raise TaskRejectedError("networks: not supported by podman-executor; remove them from the service")
    if any(port.publish_mode == PortConfig.INGRESS for port in task.endpoint.ports):
        raise TaskRejectedError("endpoint.ports: publish mode 'ingress' is not supported here; use mode 'host'")
    if spec.isolation != ContainerSpec.ISOLATION_DEFAULT:
        raise TaskRejectedError("container.isolation: only Windows knows it")
    refuse_meaningless(task)
    for mount in spec.mounts:
        _refuse_mount(mount)
    if spec.stop_signal and signal_number(spec.stop_signal) is None:
        raise TaskRejectedError(f"container.stop_signal: {spec.stop_signal!r} is no signal")
    if host.version < UNSETS_VARIABLES and (unset := _unset(task)):
        raise TaskRejectedError(f"container.env: {unset[0]!r} has no value: Podman 4.2 or later is needed to unset it")
    _refuse_privileges(spec.privileges, host)
    _refuse_limits(task, host)
    _log_configuration(task, host)


def _refuse_mount(mount: Mount) -> None:
    if mount.type not in (Mount.BIND, Mount.VOLUME, Mount.TMPFS):
        raise TaskRejectedError(f"container.mounts: type {Mount.Type.Name(mount.type)} is not supported here")
    if mount.bind_options.readonlyforcerecursive:
        raise TaskRejectedError("container.mounts.bind_options.readonlyforcerecursive: Podman can't promise it")
    options = mount.volume_options
    if options.subpath:
        raise TaskRejectedError("container.mounts.volume_options.subpath: not supported by podman-executor")
    for option in filter(None, mount.tmpfs_options.options.split(",")):
        if option not in _TMPFS_OPTIONS:
            raise TaskRejectedError(f"container.mounts.tmpfs_options.options: {option!r} is not supported here")


def _refuse_privileges(privileges: Privileges, host: Host) -> None:
    if privileges.HasField("credential_spec"):
        raise TaskRejectedError("container.privileges.credential_spec: only Windows knows it")
    selinux = privileges.selinux_context
    if (selinux.user or selinux.role or selinux.type or selinux.level) and not host.has_selinux:
        raise TaskRejectedError("container.privileges.selinux_context: this host has no SELinux")
    if privileges.seccomp.mode == Privileges.SeccompOpts.CUSTOM:
        if not host.has_seccomp:
            raise TaskRejectedError("container.privileges.seccomp: this host has no seccomp")
        seccomp_profile(privileges.seccomp.profile)


def _refuse_limits(task: Task, host: Host) -> None:
    """What would only fail when the container starts, in words that name no field."""
    needs, spec = task.spec.resources, task.spec.container
    for field, is_set, controller in (
        ("resources.limits.nano_cpus", needs.limits.nano_cpus, "cpu"),
        ("resources.limits.memory_bytes", needs.limits.memory_bytes, "memory"),
        ("resources.reservations.memory_bytes", needs.reservations.memory_bytes, "memory"),
        ("resources.swap_bytes", needs.HasField("swap_bytes"), "memory"),
        ("resources.memory_swappiness", needs.HasField("memory_swappiness"), "memory"),
        ("container.pidsLimit", spec.pidsLimit > 0, "pids"),
    ):
        if is_set and controller not in host.controllers:
            raise TaskRejectedError(f"{field}: the engine may not use the cgroup controller {controller!r} here")
        if is_set and host.rootless and not host.cgroup_v2:
            raise TaskRejectedError(f"{field}: a rootless engine needs cgroups v2 for it")
    if needs.HasField("swap_bytes") and needs.swap_bytes.value >= 0 and not needs.limits.memory_bytes:
        raise TaskRejectedError("resources.swap_bytes: needs resources.limits.memory_bytes")
    if needs.HasField("memory_swappiness") and host.cgroup_v2:
        raise TaskRejectedError("resources.memory_swappiness: cgroups v2 do not know it")
    if spec.oom_score_adj < 0 and host.rootless:
        raise TaskRejectedError("container.oom_score_adj: a rootless engine can't lower it")


def create_request(task: Task, *, image: str, host: Host, health: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of the create request, without the mounts that carry secrets and configs.

    `image` is the reference to use, `health` the health check, the image's where the task has none of its own. Raises
    TaskRejectedError with the name of a field that can't be honoured here.
    """
    refuse_unsupported(task, host)
    spec = task.spec.container
    request: dict[str, Any] = {
        "name": container_name(task),
        "image": image,
        "labels": labels(task),
        "env": dict(_variable(entry) for entry in environment(task) if "=" in entry),
        "terminal": spec.tty,
        "stdin": spec.open_stdin,
        "stop_timeout": math.ceil(stop_grace(task)),
        "image_volume_mode": "anonymous",
        "mounts": [mount for each in spec.mounts if (mount := _mount(each))],
        "volumes": _volumes(task),
        "portmappings": _ports(task),
        "read_only_filesystem": spec.read_only,
        "groups": list(spec.groups),
        "cap_add": list(spec.capability_add),
        "cap_drop": list(spec.capability_drop),
        "sysctl": dict(spec.sysctls),
        "r_limits": [
            {"type": limit.name.lower().removeprefix("rlimit_"), "soft": limit.soft, "hard": limit.hard}
            for limit in spec.ulimits
        ],
        "hostadd": [extra for line in spec.hosts for extra in extra_hosts(line)],
        "resource_limits": _limits(task),
        **_privileges(spec.privileges),
        **_log_configuration(task, host),
    }
    for key, value in (
        ("entrypoint", list(spec.command)),
        ("command", list(spec.args)),
        ("work_dir", spec.dir),
        ("user", spec.user),
        ("hostname", spec.hostname),
        ("stop_signal", signal_number(spec.stop_signal) if spec.stop_signal else None),
        ("oom_score_adj", spec.oom_score_adj),
        ("healthconfig", health),
        ("unsetenv", _unset(task)),
        ("dns_server", list(spec.dns_config.nameservers)),
        ("dns_search", list(spec.dns_config.search)),
        ("dns_option", list(spec.dns_config.options)),
    ):
        if value:
            request[key] = value
    if spec.HasField("init"):
        request["init"] = spec.init.value
    return request


def bind(source: str, target: str, *options: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "destination": target, "options": ["rbind", *options]}


def file_mount(source: str, target: str, host: Host) -> dict[str, Any]:
    """The read-only mount of a file of our own; with SELinux only one that is labelled for containers can be read."""
    return bind(source, target, "ro", "rprivate", *(("z",) if host.has_selinux else ()))


def volume_requests(task: Task) -> list[dict[str, Any]]:
    """The bodies that create volumes which have to be made as the task says, before its container."""
    own = own_volumes(task)
    found = []
    for position, mount in enumerate(task.spec.container.mounts):
        if mount.type == Mount.VOLUME and _is_described(mount):
            driver = mount.volume_options.driver_config
            found.append(
                {
                    "Name": mount.source or own[position],
                    "Driver": driver.name or "local",
                    "Label": dict(mount.volume_options.labels),
                    "Options": dict(driver.options),
                }
            )
    return found


def own_volumes(task: Task) -> dict[int, str]:
    """Names of the volumes without one that are made before the container, by the position of their mount.

    Podman removes a volume with its container only if the container made it, and then without labels and driver.
    """
    return {
        position: f"{task.id}-{position}"
        for position, mount in enumerate(task.spec.container.mounts)
        if mount.type == Mount.VOLUME and not mount.source and _is_described(mount)
    }


def _is_described(mount: Mount) -> bool:
    return bool(mount.volume_options.labels) or mount.volume_options.HasField("driver_config")


def _unset(task: Task) -> list[str]:
    """Variables of the image that the container shall not have: named without a value, as on Docker."""
    return [entry for entry in environment(task) if "=" not in entry]


def _variable(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def _mount(mount: Mount) -> dict[str, Any] | None:
    access = "ro" if mount.readonly else "rw"
    if mount.type == Mount.BIND:
        how = "bind" if mount.bind_options.nonrecursive else "rbind"
        options = [how, access, _PROPAGATIONS[mount.bind_options.propagation]]
        return {"type": "bind", "source": mount.source, "destination": mount.target, "options": options}
    if mount.type != Mount.TMPFS:
        return None
    tmpfs = mount.tmpfs_options
    # Docker's starts empty; Podman's would begin with what the image has there.
    options = [access, "notmpcopyup", *filter(None, tmpfs.options.split(","))]
    if tmpfs.size_bytes:
        options.append(f"size={tmpfs.size_bytes}")
    if tmpfs.mode:
        options.append(f"mode={tmpfs.mode:o}")
    return {"type": "tmpfs", "source": "tmpfs", "destination": mount.target, "options": options}


def _volumes(task: Task) -> list[dict[str, Any]]:
    own, found = own_volumes(task), []
    for position, mount in enumerate(task.spec.container.mounts):
        if mount.type == Mount.VOLUME:
            options = ["ro" if mount.readonly else "rw", *(["nocopy"] if mount.volume_options.nocopy else [])]
            found.append({"Name": mount.source or own.get(position, ""), "Dest": mount.target, "Options": options})
    return found


def _ports(task: Task) -> list[dict[str, Any]]:
    return [
        {
            "container_port": port.target_port,
            "host_port": port.published_port,
            "protocol": _PROTOCOLS[port.protocol],
        }
        for port in task.endpoint.ports
        if port.publish_mode == PortConfig.HOST
    ]


def _limits(task: Task) -> dict[str, Any]:
    spec, needs = task.spec.container, task.spec.resources
    memory: dict[str, Any] = {}
    if needs.limits.memory_bytes:
        memory["limit"] = needs.limits.memory_bytes
    if needs.reservations.memory_bytes:
        memory["reservation"] = needs.reservations.memory_bytes
    if needs.HasField("swap_bytes"):
        swap = needs.swap_bytes.value
        memory["swap"] = swap if swap < 0 else needs.limits.memory_bytes + swap
    if needs.HasField("memory_swappiness"):
        memory["swappiness"] = needs.memory_swappiness.value
    found: dict[str, Any] = {}
    if memory:
        found["memory"] = memory
    if needs.limits.nano_cpus:
        quota = needs.limits.nano_cpus * CPU_PERIOD_MICROSECONDS // 1_000_000_000
        found["cpu"] = {"period": CPU_PERIOD_MICROSECONDS, "quota": max(quota, 1000)}
    if spec.pidsLimit > 0:
        found["pids"] = {"limit": spec.pidsLimit}
    return found


def _privileges(privileges: Privileges) -> dict[str, Any]:
    """Without a custom seccomp profile, which is a file: `controller.py` writes it."""
    found: dict[str, Any] = {"no_new_privileges": privileges.no_new_privileges}
    selinux = privileges.selinux_context
    options = ["disable"] if selinux.disable else []
    for key in ("user", "role", "type", "level"):
        if value := getattr(selinux, key):
            options.append(f"{key}:{value}")
    if options:
        found["selinux_opts"] = options
    if privileges.seccomp.mode == Privileges.SeccompOpts.UNCONFINED:
        found["seccomp_profile_path"] = "unconfined"
    if privileges.apparmor.mode == Privileges.AppArmorOpts.DISABLED:
        found["apparmor_profile"] = "unconfined"
    return found


def custom_seccomp(task: Task) -> str | None:
    """The task's own seccomp profile as JSON; None where it has none."""
    seccomp = task.spec.container.privileges.seccomp
    return seccomp_profile(seccomp.profile) if seccomp.mode == Privileges.SeccompOpts.CUSTOM else None


def _log_configuration(task: Task, host: Host) -> dict[str, Any]:
    if not task.log_driver.name:
        if task.log_driver.options:
            raise TaskRejectedError("log_driver.options: need the name of a driver")
        return {}
    name = LOG_DRIVERS.get(task.log_driver.name, task.log_driver.name)
    if name not in host.log_drivers:
        offered = ", ".join(sorted(host.log_drivers))
        raise TaskRejectedError(f"log_driver: {task.log_driver.name!r} is not one of this engine's: {offered}")
    options = dict(task.log_driver.options)
    for option in sorted(options.keys() - LOG_OPTIONS.get(name, frozenset())):
        raise TaskRejectedError(f"log_driver.options: {option!r} is not known to Podman's log driver {name!r}")
    found: dict[str, Any] = {"driver": name}
    if "max-size" in options:
        found["size"] = _size(options.pop("max-size"))
    if "path" in options:
        found["path"] = options.pop("path")
    if options:
        found["options"] = options
    return {"log_configuration": found}


def _size(text: str) -> int:
    number = text.strip().lower().removesuffix("b")
    unit = number[-1:] if not number[-1:].isdigit() else ""
    digits = number.removesuffix(unit) if unit else number
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit()) or len(digits) > 15:
        raise TaskRejectedError(f"log_driver.options: max-size {text!r} is not a size such as 10m")
    return int(digits) * _UNITS[unit]

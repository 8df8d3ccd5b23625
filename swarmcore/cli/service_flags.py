"""The flags of `service create` and `service update`: what they are called, and what each does to a spec.

A flag that is not given changes nothing. A list that is given replaces the list; given once and empty it empties it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from google.protobuf.duration_pb2 import Duration

from swarmcore.api.specs_pb2 import ContainerSpec, ServiceSpec, TaskSpec
from swarmcore.api.types_pb2 import RestartPolicy, UpdateConfig
from swarmcore.cli import service_values, values
from swarmcore.cli.command_line import CliError, F, Flag, flags

T = TypeVar("T")

ON_FAILURE = {"pause": UpdateConfig.PAUSE, "continue": UpdateConfig.CONTINUE, "rollback": UpdateConfig.ROLLBACK}
ORDER = {"stop-first": UpdateConfig.STOP_FIRST, "start-first": UpdateConfig.START_FIRST}
CONDITION = {"any": RestartPolicy.ANY, "failure": RestartPolicy.ON_FAILURE, "none": RestartPolicy.NONE}
MAX_COUNT = 2**63 - 1


if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType


class Value(_Type):
    """A flag's value that `parse` reads; its ValueError is the refusal."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if not value and getattr(param, "multiple", False):
            return None
        if any(ord(char) < 32 and char not in "\t\n" for char in value):
            self.fail(f"{value!r} has control characters", param, ctx)
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name


def duration(text: str) -> Duration:
    nanos = values.duration_nanoseconds(text)
    if nanos < 0:
        raise ValueError(f"{text!r} is negative")
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > MAX_COUNT:
        raise ValueError(f"{text!r} is not a whole number between 0 and {MAX_COUNT}")
    return int(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1
    if not 0 <= ratio <= 1:
        raise ValueError(f"{text!r} is not a number between 0 and 1")
    return ratio


TEXT = Value("TEXT", str)
COUNT = Value("N", count)
DURATION = Value("DURATION", duration)
SIZE = Value("SIZE", values.memory_bytes)
CPUS = Value("CPUS", values.nano_cpus)
PAIR = Value("KEY=VALUE", values.key_value)


def _flag(section: str, *names: str, type: _Type = TEXT, help: str, **more: Any) -> Any:
    return click.option(*names, cls=Flag, section=section, type=type, help=help, **more)


def _choice(section: str, name: str, choices: Mapping[str, object], help: str) -> Any:
    return click.option(name, cls=Flag, section=section, type=click.Choice(list(choices)), help=help)


def _update_flags(prefix: str, title: str, actions: Mapping[str, object]) -> list[Any]:
    what = "a rollback" if prefix == "rollback" else "an update"
    return [
        _flag(
            title, f"--{prefix}-parallelism", type=COUNT, help=f"Tasks that {what} replaces at once; 0 is all of them."
        ),
        _flag(title, f"--{prefix}-delay", type=DURATION, help="Wait between one task and the next."),
        _choice(title, f"--{prefix}-on-failure", actions, "What to do when a new task fails."),
        _choice(title, f"--{prefix}-order", ORDER, "Stop the old task first, or start the new one first."),
        _flag(title, f"--{prefix}-monitor", type=DURATION, help="Watch a new task for failure so long; 5s by default."),
        _flag(
            title,
            f"--{prefix}-max-failure-ratio",
            type=Value("RATIO", _ratio),
            help="Failed tasks to put up with, from 0 (none) to 1.",
        ),
    ]


def _container_flags() -> list[Any]:
    task, files = "What runs", "Files and ports"
    return [
        _flag(task, "--image", help="The container's image."),
        _flag(task, "--command", multiple=True, help="Instead of the image's entrypoint, a word each time."),
        _flag(task, "--args", multiple=True, help="Arguments, one each time."),
        _flag(task, "--env", multiple=True, type=Value("KEY=VALUE", str), help="Environment. Repeatable."),
        _flag(task, "--dir", help="Working directory."),
        _flag(task, "--user", help="User, as name or uid, with :group where wanted."),
        _flag(task, "--hostname", help="The container's hostname."),
        click.option("--tty/--no-tty", cls=Flag, section=task, default=None, help="Allocate a terminal."),
        click.option("--open-stdin/--no-open-stdin", cls=Flag, section=task, default=None, help="Keep stdin open."),
        click.option(
            "--init/--no-init", cls=Flag, section=task, default=None, help="Run an init that reaps processes."
        ),
        _flag(
            files,
            "--ports",
            multiple=True,
            type=Value("NAME:TARGET[:PUBLISHED]", service_values.port),
            help="Publish on the task's host, like web:80/tcp:8080. Repeatable.",
        ),
        _flag(files, "--network", help="A network to attach to, by name or id."),
        _flag(files, "--bind", multiple=True, type=Value("SRC:DST", service_values.bind), help="Mount a host's path."),
        _flag(files, "--volume", multiple=True, type=Value("DST", service_values.volume), help="Mount a new volume."),
        _flag(
            files,
            "--tmpfs",
            multiple=True,
            type=Value("DST[:OPTIONS]", service_values.tmpfs),
            help="Mount memory, like /tmp:size=64m,mode=1777,noexec.",
        ),
        _flag(files, "--npipe", multiple=True, type=Value("SRC:DST", service_values.npipe), help="Mount a named pipe."),
    ]


def _resource_flags() -> list[Any]:
    title = "Resources"
    return [
        _flag(title, "--cpu-reservation", type=CPUS, help="Place only where so many CPUs are free, like 0.5."),
        _flag(title, "--cpu-limit", type=CPUS, help="Let it use no more CPUs than this."),
        _flag(title, "--memory-reservation", type=SIZE, help="Place only where so much memory is free, like 512m."),
        _flag(title, "--memory-limit", type=SIZE, help="Let it use no more memory than this."),
        _flag(
            title,
            "--generic-resources",
            type=Value("KIND=N,…", values.discrete_resources),
            help="Generic resources to reserve, like gpu=2,fpga=1.",
        ),
        _flag(
            title, "--ulimit", multiple=True, type=Value("NAME=SOFT[:HARD]", service_values.ulimit), help="A ulimit."
        ),
        _flag(title, "--oom-score-adj", type=Value("N", _integer), help="-1000 (kill it last) to 1000."),
    ]


def _policy_flags() -> list[Any]:
    service, restart = "Service", "Restarts"
    return [
        _flag(service, "--name", help="The service's name."),
        _flag(
            service, "--label", multiple=True, type=PAIR, help="The service's labels: replaces them all. Repeatable."
        ),
        _flag(service, "--replicas", type=COUNT, help="How many tasks; a new service has 1."),
        _flag(service, "--replicas-max-per-node", type=COUNT, help="At most so many on one node; 0 is no limit."),
        _flag(
            service,
            "--constraint",
            multiple=True,
            help="Only nodes that match, like node.labels.disk==ssd. Repeatable.",
        ),
        _flag(
            service,
            "--placement-pref",
            multiple=True,
            type=Value("spread=LABEL", service_values.spread),
            help="Spread evenly over the values of a label, like spread=node.labels.rack. Repeatable.",
        ),
        _choice(restart, "--restart-condition", CONDITION, "When to replace a task that has ended; any by default."),
        _flag(restart, "--restart-delay", type=DURATION, help="Wait before that; 5s by default."),
        _flag(restart, "--restart-max-attempts", type=COUNT, help="Give up after so many; 0 is never."),
        _flag(restart, "--restart-window", type=DURATION, help="Count only restarts within this time; 0s is all."),
        *_update_flags("update", "Updates", ON_FAILURE),
        *_update_flags("rollback", "Rollbacks", {"pause": 0, "continue": 1}),
        _flag("Logs", "--log-driver", help="The engine's log driver; empty for its default."),
        _flag("Logs", "--log-opt", multiple=True, type=PAIR, help="An option of the log driver. Repeatable."),
    ]


def service_flags() -> Callable[[F], F]:
    """Decorates `create` and `update`."""
    policy = _policy_flags()
    return flags(*policy[:6], *_container_flags(), *_resource_flags(), *policy[6:])


Given = Mapping[str, Any]


def _listed(given: Given, name: str) -> list[Any] | None:
    """The list of a repeatable flag: None where it was not given, empty where it was given empty."""
    items = given.get(name) or ()
    return [item for item in items if item not in (None, "")] if items else None


def apply_flags(spec: ServiceSpec, given: Given) -> None:
    """Change `spec` as the flags say; raises CliError where they contradict it. The network is not looked at."""
    if given["name"] is not None:
        spec.annotations.name = given["name"]
    labels = _listed(given, "label")
    if labels is not None:
        spec.annotations.labels.clear()
        spec.annotations.labels.update(dict(labels))
    _apply_mode(spec, given)
    _apply_resources(spec.task, given)
    _apply_restart(spec.task, given)
    apply_update(spec, given, "update")
    apply_update(spec, given, "rollback")
    _apply_log_driver(spec.task, given)
    constraints = _listed(given, "constraint")
    if constraints is not None:
        del spec.task.placement.constraints[:]
        spec.task.placement.constraints.extend(constraints)
    preferences = _listed(given, "placement_pref")
    if preferences is not None:
        del spec.task.placement.preferences[:]
        spec.task.placement.preferences.extend(preferences)
    ports = _listed(given, "ports")
    if ports is not None:
        del spec.endpoint.ports[:]
        spec.endpoint.ports.extend(ports)


def _apply_mode(spec: ServiceSpec, given: Given) -> None:
    for name in ("replicas", "replicas_max_per_node"):
        if given[name] is not None and spec.WhichOneof("mode") != "replicated":
            raise CliError(f"--{name.replace('_', '-')} is only for replicated services: leave it out")
    if given["replicas"] is not None:
        spec.replicated.replicas = given["replicas"]
    if given["replicas_max_per_node"] is not None:
        spec.task.placement.max_replicas = given["replicas_max_per_node"]


def _apply_resources(task: TaskSpec, given: Given) -> None:
    for side in ("reservation", "limit"):
        cpu, memory = given[f"cpu_{side}"], given[f"memory_{side}"]
        if cpu is not None:
            getattr(task.resources, side + "s").nano_cpus = cpu
        if memory is not None:
            getattr(task.resources, side + "s").memory_bytes = memory
    if given["generic_resources"] is not None:
        del task.resources.reservations.generic[:]
        task.resources.reservations.generic.extend(given["generic_resources"])


def _apply_restart(task: TaskSpec, given: Given) -> None:
    names = ("condition", "delay", "max_attempts", "window")
    wanted = {name: given[f"restart_{name}"] for name in names if given[f"restart_{name}"] is not None}
    if not wanted:
        return
    if not task.HasField("restart"):
        task.restart.condition = RestartPolicy.ANY
    if "condition" in wanted:
        task.restart.condition = CONDITION[wanted["condition"]]
    if "max_attempts" in wanted:
        task.restart.max_attempts = wanted["max_attempts"]
    for name in ("delay", "window"):
        if name in wanted:
            getattr(task.restart, name).CopyFrom(wanted[name])


def apply_update(spec: ServiceSpec, given: Given, which: str) -> None:
    """`which` is update or rollback; both take the same flags."""
    names = ("parallelism", "delay", "on_failure", "order", "monitor", "max_failure_ratio")
    wanted = {name: given[f"{which}_{name}"] for name in names if given[f"{which}_{name}"] is not None}
    if not wanted:
        return
    config: UpdateConfig = getattr(spec, which)
    config.SetInParent()
    if "parallelism" in wanted:
        config.parallelism = wanted["parallelism"]
    if "on_failure" in wanted:
        config.failure_action = ON_FAILURE[wanted["on_failure"]]
    if "order" in wanted:
        config.order = ORDER[wanted["order"]]
    if "max_failure_ratio" in wanted:
        config.max_failure_ratio = wanted["max_failure_ratio"]
    for name in ("delay", "monitor"):
        if name in wanted:
            getattr(config, name).CopyFrom(wanted[name])


def _apply_log_driver(task: TaskSpec, given: Given) -> None:
    options = _listed(given, "log_opt")
    if given["log_driver"] is not None:
        task.ClearField("log_driver")
        if given["log_driver"]:
            task.log_driver.name = given["log_driver"]
    if options is not None:
        if not task.log_driver.name:
            raise CliError("--log-opt needs --log-driver: name the driver that the options are for")
        task.log_driver.options.clear()
        task.log_driver.options.update(dict(options))


def apply_container(container: ContainerSpec, given: Given) -> None:
    """The flags that mean something for a container."""
    for name in ("image", "dir", "user", "hostname", "tty", "open_stdin", "oom_score_adj"):
        if given[name] is not None:
            setattr(container, name, given[name])
    if given["init"] is not None:
        container.init.value = given["init"]
    for name, field in (("command", "command"), ("args", "args"), ("env", "env"), ("ulimit", "ulimits")):
        items = _listed(given, name)
        if items is not None:
            _replace(getattr(container, field), items)
    kinds = ("bind", "volume", "tmpfs", "npipe")
    mounts = {kind: _listed(given, kind) for kind in kinds}
    for kind, items in mounts.items():
        if items is not None:
            number = kinds.index(kind)
            kept = [mount for mount in container.mounts if mount.type != number]
            _replace(container.mounts, [*kept, *items])


def _replace(repeated: Any, items: Iterable[Any]) -> None:
    copies = list(items)
    del repeated[:]
    repeated.extend(copies)

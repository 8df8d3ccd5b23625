"""The flags of `service create` and `service update`: what they are called, and what each does to a spec.

A flag that is not given changes nothing. A list that is given replaces the list; given once and empty it empties it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarmcore.api.specs_pb2 import ContainerSpec, ServiceSpec, TaskSpec
from swarmcore.api.types_pb2 import RestartPolicy, UpdateConfig
from swarmcore.cli import container_flags, service_values, values
from swarmcore.cli.command_line import CliError, F, flags
from swarmcore.cli.flag_types import (
    COUNT,
    CPUS,
    DURATION,
    PAIR,
    SIZE,
    Given,
    Value,
    between,
    choice,
    flag,
    listed,
    replace,
    switch,
)

ON_FAILURE = {"pause": UpdateConfig.PAUSE, "continue": UpdateConfig.CONTINUE, "rollback": UpdateConfig.ROLLBACK}
ORDER = {"stop-first": UpdateConfig.STOP_FIRST, "start-first": UpdateConfig.START_FIRST}
CONDITION = {"any": RestartPolicy.ANY, "failure": RestartPolicy.ON_FAILURE, "none": RestartPolicy.NONE}


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1
    if not 0 <= ratio <= 1:
        raise ValueError(f"{text!r} is not a number between 0 and 1")
    return ratio


def _size_or_none(text: str) -> int:
    return -1 if text.strip() == "-1" else values.memory_bytes(text)


SIZE_OR_NONE = Value("SIZE", _size_or_none)


def _update_flags(prefix: str, title: str, actions: Mapping[str, object]) -> list[Any]:
    what = "a rollback" if prefix == "rollback" else "an update"
    return [
        flag(
            title, f"--{prefix}-parallelism", type=COUNT, help=f"Tasks that {what} replaces at once; 0 is all of them."
        ),
        flag(title, f"--{prefix}-delay", type=DURATION, help="Wait between one task and the next."),
        choice(title, f"--{prefix}-on-failure", actions, "What to do when a new task fails."),
        choice(title, f"--{prefix}-order", ORDER, "Stop the old task first, or start the new one first."),
        flag(title, f"--{prefix}-monitor", type=DURATION, help="Watch a new task for failure so long; 5s by default."),
        flag(
            title,
            f"--{prefix}-max-failure-ratio",
            type=Value("RATIO", _ratio),
            help="Failed tasks to put up with, from 0 (none) to 1.",
        ),
    ]


def _container_flags() -> list[Any]:
    task, files = "What runs", "Files and ports"
    return [
        flag(task, "--image", help="The container's image."),
        flag(task, "--command", multiple=True, help="Instead of the image's entrypoint, a word each time."),
        flag(task, "--args", multiple=True, help="Arguments, one each time."),
        flag(task, "--env", multiple=True, type=Value("KEY=VALUE", str), help="Environment. Repeatable."),
        flag(task, "--dir", "--workdir", "-w", help="Working directory."),
        flag(task, "--user", help="User, as name or uid, with :group where wanted."),
        flag(task, "--hostname", help="The container's hostname."),
        switch(task, "tty", "Allocate a terminal."),
        switch(task, "open-stdin", "Keep stdin open."),
        switch(task, "init", "Run an init that reaps processes."),
        flag(
            files,
            "--ports",
            multiple=True,
            type=Value("NAME:TARGET[:PUBLISHED]", service_values.port),
            help="Publish on the task's host, like web:80/tcp:8080. Repeatable.",
        ),
        flag(files, "--network", help="A network to attach to, by name or id."),
        flag(files, "--bind", multiple=True, type=Value("SRC:DST", service_values.bind), help="Mount a host's path."),
        flag(files, "--volume", multiple=True, type=Value("DST", service_values.volume), help="Mount a new volume."),
        flag(
            files,
            "--tmpfs",
            multiple=True,
            type=Value("DST[:OPTIONS]", service_values.tmpfs),
            help="Mount memory, like /tmp:size=64m,mode=1777,noexec.",
        ),
        flag(files, "--npipe", multiple=True, type=Value("SRC:DST", service_values.npipe), help="Mount a named pipe."),
    ]


def _resource_flags() -> list[Any]:
    title = "Resources"
    return [
        flag(
            title,
            "--cpu-reservation",
            "--reserve-cpu",
            type=CPUS,
            help="Place only where so many CPUs are free, like 0.5.",
        ),
        flag(title, "--cpu-limit", "--limit-cpu", type=CPUS, help="Let it use no more CPUs than this."),
        flag(
            title,
            "--memory-reservation",
            "--reserve-memory",
            type=SIZE,
            help="Place only where so much memory is free, like 512m.",
        ),
        flag(title, "--memory-limit", "--limit-memory", type=SIZE, help="Let it use no more memory than this."),
        flag(
            title,
            "--generic-resources",
            "--generic-resource",
            type=Value("KIND=N,…", values.discrete_resources),
            help="Generic resources to reserve, like gpu=2,fpga=1.",
        ),
        flag(title, "--ulimit", multiple=True, type=Value("NAME=SOFT[:HARD]", service_values.ulimit), help="A ulimit."),
        flag(title, "--pids-limit", "--limit-pids", type=COUNT, help="At most so many processes; 0 is no limit."),
        flag(title, "--memory-swap", type=SIZE_OR_NONE, help="Swap it may use besides memory; -1 is no limit."),
        flag(title, "--memory-swappiness", type=between(-1, 100), help="0 to 100; -1 for the engine's own."),
        flag(title, "--oom-score-adj", type=between(-1000, 1000), help="-1000 (kill it last) to 1000."),
    ]


def _policy_flags() -> list[Any]:
    service, restart = "Service", "Restarts"
    return [
        flag(service, "--name", help="The service's name."),
        flag(service, "--label", multiple=True, type=PAIR, help="The service's labels: replaces them all. Repeatable."),
        flag(service, "--replicas", type=COUNT, help="How many tasks; a new service has 1."),
        flag(service, "--completions", type=COUNT, help="Of a replicated job: how many tasks must complete; 1 if new."),
        flag(
            service,
            "--max-concurrent",
            type=COUNT,
            help="Of a replicated job: how many of them at once; all, if new. 0 stops it from going on.",
        ),
        flag(service, "--replicas-max-per-node", type=COUNT, help="At most so many on one node; 0 is no limit."),
        flag(
            service,
            "--constraint",
            multiple=True,
            help="Only nodes that match, like node.labels.disk==ssd. Repeatable.",
        ),
        flag(
            service,
            "--placement-pref",
            multiple=True,
            type=Value("spread=LABEL", service_values.spread),
            help="Spread evenly over the values of a label, like spread=node.labels.rack. Repeatable.",
        ),
        choice(restart, "--restart-condition", CONDITION, "When to replace a task that has ended; any by default."),
        flag(restart, "--restart-delay", type=DURATION, help="Wait before that; 5s by default."),
        flag(restart, "--restart-max-attempts", type=COUNT, help="Give up after so many; 0 is never."),
        flag(restart, "--restart-window", type=DURATION, help="Count only restarts within this time; 0s is all."),
        *_update_flags("update", "Updates", ON_FAILURE),
        *_update_flags("rollback", "Rollbacks", {"pause": 0, "continue": 1}),
        flag("Logs", "--log-driver", help="The engine's log driver; empty for its default."),
        flag("Logs", "--log-opt", multiple=True, type=PAIR, help="An option of the log driver. Repeatable."),
    ]


def service_flags() -> Callable[[F], F]:
    """Decorates `create` and `update`."""
    policy = _policy_flags()
    return flags(*policy[:8], *_container_flags(), *container_flags.options(), *_resource_flags(), *policy[8:])


def apply_flags(spec: ServiceSpec, given: Given) -> None:
    """Change `spec` as the flags say; raises CliError where they contradict it. The network is not looked at."""
    if given["name"] is not None:
        spec.annotations.name = given["name"]
    labels = listed(given, "label")
    if labels is not None:
        spec.annotations.labels.clear()
        spec.annotations.labels.update(dict(labels))
    _apply_mode(spec, given)
    _apply_resources(spec.task, given)
    _apply_restart(spec.task, given)
    apply_update(spec, given, "update")
    apply_update(spec, given, "rollback")
    _apply_log_driver(spec.task, given)
    constraints = listed(given, "constraint")
    if constraints is not None:
        del spec.task.placement.constraints[:]
        spec.task.placement.constraints.extend(constraints)
    preferences = listed(given, "placement_pref")
    if preferences is not None:
        del spec.task.placement.preferences[:]
        spec.task.placement.preferences.extend(preferences)
    ports = listed(given, "ports")
    if ports is not None:
        del spec.endpoint.ports[:]
        spec.endpoint.ports.extend(ports)


def _apply_mode(spec: ServiceSpec, given: Given) -> None:
    mode = spec.WhichOneof("mode")
    for name, modes in (
        ("replicas", ("replicated",)),
        ("replicas_max_per_node", ("replicated", "replicated_job")),
        ("completions", ("replicated_job",)),
        ("max_concurrent", ("replicated_job",)),
    ):
        if given[name] is not None and mode not in modes:
            what = "replicated services" if modes[0] == "replicated" else "replicated jobs"
            instead = "say --completions" if name == "replicas" and mode == "replicated_job" else "leave it out"
            raise CliError(f"--{name.replace('_', '-')} is only for {what}: {instead}")
    if given["completions"] is not None:
        spec.replicated_job.total_completions = given["completions"]
    if given["max_concurrent"] is not None:
        spec.replicated_job.max_concurrent = given["max_concurrent"]
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
    for name, field in (("memory_swap", "swap_bytes"), ("memory_swappiness", "memory_swappiness")):
        if given[name] is not None:
            getattr(task.resources, field).value = given[name]
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
    options = listed(given, "log_opt")
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
        items = listed(given, name)
        if items is not None:
            replace(getattr(container, field), items)
    _apply_mounts(container, given)
    container_flags.apply(container, given)


def _apply_mounts(container: ContainerSpec, given: Given) -> None:
    every = listed(given, "mount")
    kinds = ("bind", "volume", "tmpfs", "npipe")
    mounts = {kind: listed(given, kind) for kind in kinds}
    if every is not None:
        for items in mounts.values():
            every.extend(items or ())
        replace(container.mounts, every)
        return
    for kind, items in mounts.items():
        if items is not None:
            number = kinds.index(kind)
            kept = [mount for mount in container.mounts if mount.type != number]
            replace(container.mounts, [*kept, *items])

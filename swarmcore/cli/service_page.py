"""The page of `swarmctl service inspect`."""

from __future__ import annotations

from typing import Any

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.api.specs_pb2 import ContainerSpec, ServiceSpec, TaskSpec
from swarmcore.api.types_pb2 import Mount, PortConfig, Resources, RestartPolicy, UpdateConfig, UpdateStatus
from swarmcore.cli.connection import Manager
from swarmcore.cli.container_page import add_settings
from swarmcore.cli.lookup import Names
from swarmcore.cli.task_table import command_line, last_failure, last_state, process_of, runs, task_table
from swarmcore.cli.text import Page, ago, cpus, duration, enum_name, memory


def show(to: Manager, service: Service, *, every: bool, as_json: bool) -> None:
    filters = pb.ListTasksRequest.Filters(service_ids=[service.id])
    found = to.call(to.control.ListTasks, pb.ListTasksRequest(filters=filters)).tasks
    tasks = [task for task in found if every or runs(task)]
    status = to.call(to.control.ListServiceStatuses, pb.ListServiceStatusesRequest(services=[service.id])).statuses
    running = status[0].running_tasks if status else 0
    if as_json:
        from swarmcore.cli.jsonview import plain, to_json

        click.echo(to_json({**plain(service), "running_tasks": running, "tasks": tasks}))
        return
    names = Names(to)
    network_names = _network_names(to, service.spec)
    # What has ended is not in the table, and why it did is what one looks for.
    failed = None if every else last_failure(found)
    if tasks or failed is not None:
        names.load_nodes()
    failure = f"{last_state(failed)} on {names.node(failed.node_id)}: {failed.status.err}" if failed is not None else ""
    click.echo(service_page(service, running, network_names, failure))
    if tasks:
        click.echo()
        click.echo(task_table(tasks, names))


def _network_names(to: Manager, spec: ServiceSpec) -> dict[str, str]:
    if not (spec.task.networks or spec.networks) or not to.resolve:
        return {}
    networks = to.call(to.control.ListNetworks, pb.ListNetworksRequest()).networks
    return {network.id: network.spec.annotations.name for network in networks}


def service_page(service: Service, running: int, networks: dict[str, str], failure: str = "") -> str:
    """All that was asked for, how far an update is, and what went wrong last, where that is given."""
    from swarmcore.cli.service import replicas

    spec = service.spec
    page = Page()
    page.add("ID", service.id)
    page.add("Name", spec.annotations.name)
    if spec.annotations.labels:
        page.listing("Labels", dict(spec.annotations.labels))
    page.add("Replicas", replicas(spec, running))
    page.add("Last failure", failure)
    _job(page, service)
    if service.HasField("update_status"):
        _update_status(page, service.update_status)
    with page.section("Template"):
        add_task_spec(page, spec.task, networks)
    _policies(page, spec)
    if service.endpoint.ports or spec.endpoint.ports:
        add_ports(page, service)
    return str(page)


def _job(page: Page, service: Service) -> None:
    if service.spec.WhichOneof("mode") == "replicated_job":
        job = service.spec.replicated_job
        page.add("Job", f"{job.total_completions} completions, {job.max_concurrent} at once")
    elif service.spec.WhichOneof("mode") == "global_job":
        page.add("Job", "once on each node")
    if service.HasField("job_status"):
        page.add("Last execution", ago(service.job_status.last_execution))


def _update_status(page: Page, status: UpdateStatus) -> None:
    with page.section("Update Status"):
        page.add("State", enum_name(UpdateStatus.UpdateState, status.state))
        page.add("Started", ago(status.started_at))
        if status.state in (UpdateStatus.COMPLETED, UpdateStatus.ROLLBACK_COMPLETED):
            page.add("Completed", ago(status.completed_at))
        page.add("Message", status.message)


def add_task_spec(page: Page, task: TaskSpec, networks: dict[str, str]) -> None:
    if task.WhichOneof("runtime") == "generic":
        _add_generic(page, task)
    with page.section("Container") if task.HasField("container") else page.section("Task"):
        if task.HasField("container"):
            add_container(page, task.container)
        if task.placement.constraints:
            page.listing("Constraints", list(task.placement.constraints))
        for preference in task.placement.preferences:
            page.add("Spread over", preference.spread.spread_descriptor)
        if task.placement.max_replicas:
            page.add("Max per node", task.placement.max_replicas)
        with page.section("Resources"):
            _add_resources(page, "Reservations", task.resources.reservations)
            _add_resources(page, "Limits", task.resources.limits)
        if task.networks:
            page.add("Networks", ", ".join(networks.get(each.target, each.target) for each in task.networks))
        if task.HasField("container"):
            add_attachments(page, task.container)
    if task.log_driver.name:
        with page.section("LogDriver"):
            page.add("Name", task.log_driver.name)
            if task.log_driver.options:
                page.listing("Options", dict(task.log_driver.options))


def _add_generic(page: Page, task: TaskSpec) -> None:
    process = process_of(task)
    with page.section(task.generic.kind.capitalize() or "Generic"):
        if process is None:
            page.add("Payload", task.generic.payload.type_url)
            return
        _add_words(page, process)
        page.add("User", process.user)
        page.add("Dir", process.dir)
        page.add("Stop Signal", process.stop_signal)
        if process.HasField("stop_grace_seconds"):
            page.add("Stop Grace", f"{process.stop_grace_seconds:g}s")
        if process.health.command:
            page.add("Health Check", command_line(process.health.command))
        page.add("Pids Limit", process.pids_limit or "")
        if process.ulimits:
            page.listing("Ulimits", [f"{each.name}={each.soft}:{each.hard}" for each in process.ulimits])


def _add_words(page: Page, spec: Any) -> None:
    if spec.command:
        page.add("Command", command_line(spec.command))
    if spec.args:
        page.add("Args", command_line(spec.args))
    if spec.env:
        page.listing("Env", list(spec.env))


def add_container(page: Page, container: ContainerSpec) -> None:
    page.add("Image", container.image)
    _add_words(page, container)
    page.add("Hostname", container.hostname)
    page.add("User", container.user)
    page.add("Dir", container.dir)
    if container.capability_add:
        page.add("Capabilities", " ".join(container.capability_add))
    if container.capability_drop:
        page.add("Dropped", " ".join(container.capability_drop))
    add_settings(page, container)
    if container.ulimits:
        page.listing("Ulimits", [f"{each.name}={each.soft}:{each.hard}" for each in container.ulimits])


def add_attachments(page: Page, container: ContainerSpec) -> None:
    if container.mounts:
        page.listing("Mounts", [_mount(mount) for mount in container.mounts])
    if container.secrets:
        page.listing("Secrets", [f"[FILE] {s.secret_name}@{s.secret_id}:{s.file.name}" for s in container.secrets])
    if container.configs:
        kinds = [("FILE", c.file.name) if c.HasField("file") else ("RUNTIME", "") for c in container.configs]
        page.listing(
            "Configs",
            [
                f"[{kind}] {c.config_name}@{c.config_id}:{target}"
                for c, (kind, target) in zip(container.configs, kinds, strict=True)
            ],
        )


def _mount(mount: Mount) -> str:
    kind = enum_name(Mount.Type, mount.type).lower()
    source = f"{mount.source}:" if mount.source else ""
    return f"{kind} {source}{mount.target}{' (read-only)' if mount.readonly else ''}"


def _add_resources(page: Page, title: str, resources: Resources) -> None:
    with page.section(title):
        if resources.nano_cpus:
            page.add("CPU", cpus(resources.nano_cpus))
        if resources.memory_bytes:
            page.add("Memory", memory(resources.memory_bytes))
        for each in resources.generic:
            spec = each.discrete_resource_spec
            if spec.kind:
                page.add(spec.kind, spec.value)


def _policies(page: Page, spec: ServiceSpec) -> None:
    restart = spec.task.restart
    if spec.task.HasField("restart") and restart != RestartPolicy(condition=RestartPolicy.ANY):
        with page.section("Restart"):
            page.add("Condition", enum_name(RestartPolicy.RestartCondition, restart.condition))
            if restart.HasField("delay"):
                page.add("Delay", duration(restart.delay.seconds, restart.delay.nanos))
            page.add("Max attempts", restart.max_attempts or None)
            if restart.window.seconds or restart.window.nanos:
                page.add("Window", duration(restart.window.seconds, restart.window.nanos))
    for title, config in (("Update", spec.update), ("Rollback", spec.rollback)):
        if config != UpdateConfig():
            with page.section(title):
                page.add("Parallelism", config.parallelism or "all at once")
                if config.HasField("delay"):
                    page.add("Delay", duration(config.delay.seconds, config.delay.nanos))
                page.add("On failure", enum_name(UpdateConfig.FailureAction, config.failure_action))
                page.add("Order", enum_name(UpdateConfig.UpdateOrder, config.order))


def add_ports(page: Page, service: Service) -> None:
    for each in service.endpoint.ports or service.spec.endpoint.ports:
        with page.section("Port"):
            page.add("Name", each.name)
            page.add("Protocol", enum_name(PortConfig.Protocol, each.protocol).lower())
            page.add("Port", each.target_port)
            page.add("SwarmPort", each.published_port or None)
            page.add("Mode", enum_name(PortConfig.PublishMode, each.publish_mode).lower())


def add_status(page: Page, task: Task) -> None:
    """The status section of a task's page."""
    from swarmcore.api.types_pb2 import TaskState
    from swarmcore.cli.task_table import state_name
    from swarmcore.cli.text import moment

    status = task.status
    with page.section("Status"):
        page.add("Desired State", state_name(task.desired_state))
        page.add("Last State", state_name(status.state))
        page.add(
            "Timestamp", f"{moment(status.timestamp)} ({ago(status.timestamp)})" if status.timestamp.seconds else ""
        )
        page.add("Message", status.message)
        page.add("Error", status.err)
        if status.HasField("container"):
            page.add("ContainerID", status.container.container_id)
            page.add("Pid", status.container.pid or None)
            if status.state > TaskState.RUNNING:
                page.add("ExitCode", status.container.exit_code)
        if status.port_status.ports:
            page.listing("Ports", [_published(port) for port in status.port_status.ports])


def _published(port: PortConfig) -> str:
    return f"0.0.0.0:{port.published_port}->{port.target_port}/{enum_name(PortConfig.Protocol, port.protocol).lower()}"

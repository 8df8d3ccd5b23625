"""Creating, changing, rolling back, removing and counting services."""

# ruff: noqa: S106 - ids and names of secrets are not secret
from __future__ import annotations

from typing import Any

import pytest

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Config, Network, Node, Secret, Service, Task
from swarmcore.api.specs_pb2 import ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec
from swarmcore.api.types_pb2 import (
    Annotations,
    ConfigReference,
    FileTarget,
    NetworkAttachmentConfig,
    NodeStatus,
    PortConfig,
    ResourceType,
    SecretReference,
    TaskState,
    UpdateStatus,
    Version,
)
from swarmcore.controlapi.defaults import with_defaults
from swarmcore.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    SequenceConflictError,
    UnimplementedError,
)


def container_service(name: str = "web", replicas: int = 2, image: str = "nginx:1") -> ServiceSpec:
    spec = ServiceSpec(annotations=Annotations(name=name))
    spec.replicated.replicas = replicas
    spec.task.container.image = image
    return spec


def with_port(
    name: str, published: int, mode: PortConfig.PublishMode.ValueType, protocol: PortConfig.Protocol.ValueType
) -> ServiceSpec:
    spec = container_service(name)
    spec.endpoint.ports.add(target_port=80, published_port=published, publish_mode=mode, protocol=protocol)
    return spec


Filters = pb.ListServicesRequest.Filters
INGRESS = Network(id="ingress", spec=NetworkSpec(annotations=Annotations(name="ingress"), ingress=True))


async def create(setup: Any, spec: ServiceSpec) -> Service:
    response = await setup.control.CreateService(pb.CreateServiceRequest(spec=spec), None)
    service: Service = response.service
    return service


async def update(setup: Any, service: Service, spec: ServiceSpec, **more: Any) -> Service:
    request = pb.UpdateServiceRequest(service_id=service.id, service_version=service.meta.version, spec=spec, **more)
    changed: Service = (await setup.control.UpdateService(request, None)).service
    return changed


async def test_a_service_is_created_as_asked_for(setup: Any) -> None:
    service = await create(setup, container_service())

    assert len(service.id) == 25
    assert service.spec == container_service()
    assert service.HasField("spec_version")
    assert service.spec_version.index == 0
    assert service.meta.version.index == 1
    assert setup.store.view.service.get(service.id) == service
    got = await setup.control.GetService(pb.GetServiceRequest(service_id=service.id), None)
    assert got.service == service


async def test_a_process_needs_no_image(setup: Any) -> None:
    spec = ServiceSpec(annotations=Annotations(name="sleeper"))
    spec.replicated.replicas = 1
    spec.task.generic.kind = "process"
    spec.task.generic.payload.type_url = "type.googleapis.com/swarmcore.v1.ProcessSpec"
    spec.task.generic.payload.value = b"\x0a\x05sleep"

    service = await create(setup, spec)

    listed = await setup.control.ListServices(pb.ListServicesRequest(filters=Filters(runtimes=["process"])), None)
    assert [other.id for other in listed.services] == [service.id]


async def test_a_job_remembers_when_it_ran(setup: Any) -> None:
    spec = container_service("job")
    spec.replicated_job.total_completions = 3

    job = await create(setup, spec)
    assert job.job_status.HasField("job_iteration")
    assert job.job_status.job_iteration.index == 0
    assert job.job_status.last_execution.seconds == 1_700_000_000
    await setup.clock.advance(60)
    again = await update(setup, job, spec)

    assert again.job_status.job_iteration.index == 1
    assert again.job_status.last_execution.seconds == 1_700_000_060


async def test_names_are_taken_whatever_their_case(setup: Any) -> None:
    await create(setup, container_service("web"))

    text = "name conflicts with an existing object"
    await setup.refused(create(setup, container_service("WEB")), AlreadyExistsError, text)


async def test_a_missing_spec_is_named(setup: Any) -> None:
    await setup.refused(
        setup.control.CreateService(pb.CreateServiceRequest(), None),
        InvalidArgumentError,
        "invalid argument: spec is missing",
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"service_id": ""}, "service_id is empty"),
        ({"service_version": None}, "service_version is missing"),
        ({"spec": None}, "spec is missing"),
        ({"rollback": 5}, "rollback has the unknown value 5"),
    ],
)
async def test_what_an_update_needs(setup: Any, change: dict[str, Any], text: str) -> None:
    service = await create(setup, container_service())
    fields: dict[str, Any] = {"service_id": service.id, "service_version": Version(index=1), "spec": service.spec}
    request = pb.UpdateServiceRequest(**(fields | change))

    await setup.refused(setup.control.UpdateService(request, None), InvalidArgumentError, text)


async def test_an_update_keeps_what_was_before(setup: Any) -> None:
    service = await create(setup, container_service())

    changed = await update(setup, service, container_service(image="nginx:2"))

    assert changed.spec.task.container.image == "nginx:2"
    assert changed.spec_version == service.meta.version
    assert changed.previous_spec == service.spec
    assert changed.previous_spec_version == service.spec_version
    assert not changed.HasField("update_status")
    assert changed.meta.version.index == 2


async def test_an_update_made_from_something_older_is_refused(setup: Any) -> None:
    service = await create(setup, container_service())
    await update(setup, service, container_service(replicas=3))

    call = update(setup, service, container_service(replicas=4))
    await setup.refused(call, SequenceConflictError, "update out of sequence")


async def test_an_update_of_nothing_is_refused(setup: Any) -> None:
    ghost = Service(id="x" * 25)

    await setup.refused(update(setup, ghost, container_service()), NotFoundError, f"service {'x' * 25} not found")


async def test_what_never_changes(setup: Any) -> None:
    service = await create(setup, container_service())
    other_mode = container_service()
    getattr(other_mode, "global").SetInParent()
    other_networks = container_service()
    other_networks.networks.append(NetworkAttachmentConfig(target="n1"))

    for spec, text in (
        (container_service("Web"), "renaming services is not supported"),
        (other_mode, "service mode change is not allowed"),
        (other_networks, "networks must be migrated to TaskSpec before being changed"),
    ):
        await setup.refused(update(setup, service, spec), UnimplementedError, text)


async def test_rolling_back_swaps_the_specs(setup: Any) -> None:
    service = await create(setup, container_service())
    changed = await update(setup, service, container_service(image="nginx:2"))

    back = await update(setup, changed, changed.spec, rollback=pb.UpdateServiceRequest.PREVIOUS)

    assert back.spec == service.spec
    assert back.spec_version == changed.previous_spec_version
    assert back.previous_spec == changed.spec
    assert back.previous_spec_version == changed.spec_version
    assert back.update_status.state == UpdateStatus.ROLLBACK_STARTED
    assert back.update_status.message == "manually requested rollback"
    assert back.update_status.started_at.seconds == 1_700_000_000


async def test_nothing_to_roll_back_to(setup: Any) -> None:
    service = await create(setup, container_service())

    call = update(setup, service, service.spec, rollback=pb.UpdateServiceRequest.PREVIOUS)
    await setup.refused(call, FailedPreconditionError, "does not have a previous spec")


async def test_rolling_back_to_a_secret_that_has_gone_is_refused(setup: Any) -> None:
    await setup.put(Secret(id="s1", spec=SecretSpec(annotations=Annotations(name="key"), data=b"x")))
    first = container_service()
    first.task.container.secrets.append(SecretReference(secret_id="s1", secret_name="key", file=FileTarget(name="key")))
    changed = await update(setup, await create(setup, first), container_service())
    await setup.control.RemoveSecret(pb.RemoveSecretRequest(secret_id="s1"), None)

    call = update(setup, changed, changed.spec, rollback=pb.UpdateServiceRequest.PREVIOUS)
    await setup.refused(call, InvalidArgumentError, "secret not found: key")


async def test_referenced_secrets_and_configs_exist_by_id_and_name(setup: Any) -> None:
    await setup.put(
        Secret(id="s1", spec=SecretSpec(annotations=Annotations(name="key"), data=b"x")),
        Config(id="c1", spec=ConfigSpec(annotations=Annotations(name="conf"), data=b"x")),
    )
    spec = container_service()
    container = spec.task.container
    container.secrets.append(SecretReference(secret_id="s1", secret_name="key", file=FileTarget(name="a")))
    container.configs.append(ConfigReference(config_id="c1", config_name="conf", file=FileTarget(name="a")))
    await create(setup, spec)

    wrong = container_service("other")
    container = wrong.task.container
    container.secrets.append(SecretReference(secret_id="s1", secret_name="other", file=FileTarget(name="a")))
    container.secrets.append(SecretReference(secret_id="s2", secret_name="key", file=FileTarget(name="b")))
    await setup.refused(create(setup, wrong), InvalidArgumentError, "secrets not found: other, key")
    del container.secrets[:]
    container.configs.append(ConfigReference(config_id="c2", config_name="conf", file=FileTarget(name="a")))
    await setup.refused(create(setup, wrong), InvalidArgumentError, "config not found: conf")


TCP, UDP = PortConfig.TCP, PortConfig.UDP
IN, HOST = PortConfig.INGRESS, PortConfig.HOST


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ((80, IN, TCP), (80, IN, TCP), True),
        ((80, HOST, TCP), (80, IN, TCP), True),
        ((80, IN, TCP), (80, HOST, TCP), True),
        ((80, HOST, TCP), (80, HOST, TCP), False),
        ((80, IN, TCP), (80, IN, UDP), False),
        ((80, IN, TCP), (81, IN, TCP), False),
        ((0, IN, TCP), (0, IN, TCP), False),
    ],
)
async def test_ports_of_two_services(setup: Any, first: Any, second: Any, is_refused: bool) -> None:
    await setup.put(INGRESS)
    one = await create(setup, with_port("one", *first))

    two = create(setup, with_port("two", *second))
    if is_refused:
        text = f"port '80' is already in use by service 'one' ({one.id})"
        await setup.refused(two, InvalidArgumentError, text)
    else:
        await two


async def test_ports_that_were_allocated_are_taken_too(setup: Any) -> None:
    taken = Service(id="taken", spec=with_port("taken", 0, IN, TCP))
    taken.endpoint.ports.add(target_port=80, published_port=30_000, publish_mode=IN)
    await setup.put(INGRESS, taken)

    call = create(setup, with_port("two", 30_000, IN, TCP))
    await setup.refused(call, InvalidArgumentError, "port '30000' is already in use by service 'taken'")


async def test_an_update_may_keep_its_own_port_and_not_take_another_ones(setup: Any) -> None:
    await setup.put(INGRESS)
    one = await create(setup, with_port("one", 80, IN, TCP))
    await create(setup, with_port("two", 81, IN, TCP))
    both = with_port("one", 80, IN, TCP)
    both.endpoint.ports.add(target_port=90, published_port=81)

    changed = await update(setup, one, with_port("one", 80, IN, TCP))

    await setup.refused(update(setup, changed, both), InvalidArgumentError, "port '81' is already in use")


async def test_ingress_ports_need_the_ingress_network(setup: Any) -> None:
    call = create(setup, with_port("one", 80, IN, TCP))
    await setup.refused(call, FailedPreconditionError, "no ingress network is present")


async def test_nobody_attaches_to_the_ingress_network(setup: Any) -> None:
    await setup.put(INGRESS)
    spec = container_service()
    spec.task.networks.append(NetworkAttachmentConfig(target="unknown"))
    await create(setup, spec)

    spec = container_service("two")
    spec.task.networks.append(NetworkAttachmentConfig(target="ingress"))
    text = "service cannot be explicitly attached to the ingress network 'ingress'"
    await setup.refused(create(setup, spec), InvalidArgumentError, text)


async def test_removing(setup: Any) -> None:
    service = await create(setup, container_service())
    request = pb.RemoveServiceRequest(service_id=service.id)

    await setup.control.RemoveService(request, None)

    assert len(setup.store.view.service) == 0
    await setup.refused(setup.control.RemoveService(request, None), NotFoundError, "not found")


async def test_listing(setup: Any) -> None:
    first = container_service("alpha")
    first.annotations.labels["tier"] = "front"
    alpha = await create(setup, first)
    beta = await create(setup, container_service("beta"))

    async def names(**filters: Any) -> list[str]:
        listed = await setup.control.ListServices(pb.ListServicesRequest(filters=Filters(**filters)), None)
        return [service.spec.annotations.name for service in listed.services]

    assert await names() == ["alpha", "beta"]
    assert await names(names=["alpha", "beta", "gamma"]) == ["alpha", "beta"]
    assert await names(names=["ALPHA"]) == []
    assert await names(name_prefixes=["al"]) == ["alpha"]
    assert await names(id_prefixes=[alpha.id]) == ["alpha"]
    assert await names(id_prefixes=["new"]) == ["alpha", "beta"]
    assert await names(id_prefixes=[alpha.id, "new"]) == ["alpha", "beta"]
    assert await names(labels={"tier": ""}) == ["alpha"]
    assert await names(labels={"tier": "back"}) == []
    assert await names(names=["alpha"], id_prefixes=[beta.id]) == []
    assert await names(runtimes=["container"]) == ["alpha", "beta"]
    assert await names(runtimes=["process"]) == []


def task(id: str, service: Service, state: int, desired: int = TaskState.RUNNING, **more: Any) -> Task:
    made = Task(id=id, service_id=service.id, **more)
    made.status.state = TaskState.ValueType(state)
    made.desired_state = TaskState.ValueType(desired)
    return made


async def statuses(setup: Any, *ids: str) -> list[tuple[int, int, int]]:
    response = await setup.control.ListServiceStatuses(pb.ListServiceStatusesRequest(services=ids), None)
    assert [status.service_id for status in response.statuses] == list(ids)
    return [(status.desired_tasks, status.running_tasks, status.completed_tasks) for status in response.statuses]


async def test_counting_the_tasks_of_replicated_and_global_services(setup: Any) -> None:
    replicated = await create(setup, container_service("one", replicas=5))
    spec = container_service("two")
    getattr(spec, "global").SetInParent()
    everywhere = await create(setup, spec)
    down = Node(id="down", status=NodeStatus(state=NodeStatus.DOWN))
    up = Node(id="up", status=NodeStatus(state=NodeStatus.READY))
    await setup.put(
        down,
        up,
        task("a", replicated, TaskState.RUNNING, node_id="up"),
        task("b", replicated, TaskState.STARTING, node_id="up"),
        task("c", replicated, TaskState.RUNNING, node_id="down"),
        task("d", everywhere, TaskState.RUNNING, node_id="up"),
        task("e", everywhere, TaskState.FAILED, TaskState.SHUTDOWN, node_id="up"),
        task("f", everywhere, TaskState.STARTING, node_id="down"),
    )

    assert await statuses(setup, replicated.id, everywhere.id, "unknown", replicated.id) == [
        (5, 1, 0),
        (2, 1, 0),
        (0, 0, 0),
        (5, 1, 0),
    ]


async def test_counting_the_tasks_of_jobs(setup: Any) -> None:
    spec = container_service("one")
    spec.replicated_job.max_concurrent = 2
    spec.replicated_job.total_completions = 9
    job = await create(setup, spec)
    spec = container_service("two")
    spec.global_job.SetInParent()
    everywhere = await update(setup, await create(setup, spec), spec)
    now = Version(index=1)
    complete = TaskState.COMPLETE
    await setup.put(
        task("a", job, TaskState.RUNNING, complete, job_iteration=Version(index=0)),
        task("b", job, complete, complete, job_iteration=Version(index=0)),
        task("c", job, complete, complete, job_iteration=Version(index=7)),
        task("d", everywhere, complete, complete, job_iteration=now),
        task("e", everywhere, TaskState.RUNNING, complete, job_iteration=now),
        task("f", everywhere, TaskState.RUNNING, complete, job_iteration=Version(index=0)),
    )

    assert await statuses(setup, job.id, everywhere.id) == [(2, 1, 1), (1, 1, 1)]


async def test_asking_for_one_service_many_times_counts_it_once(setup: Any) -> None:
    service = await create(setup, container_service())

    assert len(await statuses(setup, *[service.id] * 20_000)) == 20_000


def test_defaults_are_filled_in_only_where_nothing_is_said() -> None:
    service = Service(id="s", spec=container_service())
    filled = with_defaults(service).spec

    assert filled.task.container.stop_grace_period.seconds == 10
    assert filled.task.container.HasField("pull_options")
    assert filled.task.container.HasField("dns_config")
    assert filled.task.restart.condition == 2
    assert filled.task.restart.delay.seconds == 5
    assert filled.task.HasField("resources")
    assert filled.task.HasField("placement")
    assert (filled.update.parallelism, filled.update.monitor.seconds) == (1, 5)
    assert filled.rollback == filled.update
    assert service.spec == container_service()

    service.spec.task.restart.delay.SetInParent()
    service.spec.update.parallelism = 0
    filled = with_defaults(service).spec
    assert filled.task.restart.condition == 0
    assert filled.task.restart.delay.seconds == 0
    assert (filled.update.parallelism, filled.update.monitor.seconds) == (0, 5)


async def test_defaults_come_on_request(setup: Any) -> None:
    service = await create(setup, container_service())

    got = await setup.control.GetService(pb.GetServiceRequest(service_id=service.id, insert_defaults=True), None)

    assert got.service.spec.update.parallelism == 1


def with_login(image: str = "registry.test/app:1", login: str = "dXNlcjpwYXNz") -> ServiceSpec:
    spec = container_service(image=image)
    spec.task.container.pull_options.registry_auth = login
    return spec


def stored_login(setup: Any, service: Service) -> str:
    return str(setup.store.view.service.get(service.id).spec.task.container.pull_options.registry_auth)


async def test_a_registrys_login_is_shown_to_nobody(setup: Any) -> None:
    made = await create(setup, with_login())
    changed = await update(setup, made, with_login(login="other"))

    task = Task(id="t1", service_id=made.id, spec=setup.store.view.service.get(made.id).spec.task)
    await setup.store.update(lambda tx: tx.task.create(task))
    control = setup.control
    shown = [
        made,
        changed,
        (await control.GetService(pb.GetServiceRequest(service_id=made.id), None)).service,
        (await control.GetService(pb.GetServiceRequest(service_id=made.id, insert_defaults=True), None)).service,
        *(await control.ListServices(pb.ListServicesRequest(), None)).services,
        (await control.GetTask(pb.GetTaskRequest(task_id="t1"), None)).task,
        *(await control.ListTasks(pb.ListTasksRequest(), None)).tasks,
    ]

    assert stored_login(setup, made) == "other"
    assert setup.store.view.task.get("t1").spec.container.pull_options.registry_auth == "other"
    assert [each for each in shown if "dXNlcjpwYXNz" in str(each) or "other" in str(each)] == []
    assert [each for each in shown if "(hidden)" not in str(each)] == []


@pytest.mark.parametrize(
    ("image", "sent", "kept"),
    [
        ("registry.test/app:2", "(hidden)", "dXNlcjpwYXNz"),
        ("registry.test/app:1", "new", "new"),
        ("registry.test/app:1", "", ""),
        ("elsewhere.test/app:1", "(hidden)", ""),
        ("app:1", "(hidden)", ""),
    ],
)
async def test_a_login_that_is_sent_back_hidden_is_kept_for_its_registry(
    setup: Any, image: str, sent: str, kept: str
) -> None:
    service = await create(setup, with_login())

    await update(setup, service, with_login(image, sent))

    assert stored_login(setup, service) == kept


async def test_rolling_back_brings_the_old_login_back(setup: Any) -> None:
    service = await create(setup, with_login())
    changed = await update(setup, service, with_login(login="new"))

    await update(setup, changed, changed.spec, rollback=pb.UpdateServiceRequest.PREVIOUS)

    assert stored_login(setup, service) == "dXNlcjpwYXNz"


async def test_a_new_service_needs_the_login_itself(setup: Any) -> None:
    await setup.refused(create(setup, with_login(login="(hidden)")), InvalidArgumentError, "registry_auth is hidden")


async def test_a_reference_to_a_secret_that_is_not_there_is_refused(setup: Any) -> None:
    spec = container_service()
    spec.task.resource_references.add(resource_id="nosuch", resource_type=ResourceType.SECRET)

    await setup.refused(create(setup, spec), InvalidArgumentError, "secret not found: nosuch")

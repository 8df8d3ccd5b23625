"""Services: create, update, roll back, remove, count their tasks (SwarmKit: 2.4)."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.control_pb2 import (
    CreateServiceRequest,
    CreateServiceResponse,
    GetServiceRequest,
    GetServiceResponse,
    ListServicesRequest,
    ListServicesResponse,
    ListServiceStatusesRequest,
    ListServiceStatusesResponse,
    RemoveServiceRequest,
    RemoveServiceResponse,
    UpdateServiceRequest,
    UpdateServiceResponse,
)
from swarmcore.api.objects_pb2 import Network, Service, Task
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.api.types_pb2 import NodeStatus, ResourceType, TaskState, UpdateStatus
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.defaults import with_defaults
from swarmcore.controlapi.redact import HIDDEN, public_service, with_login
from swarmcore.controlapi.select import Predicate, candidates, common_predicates, fill, matching, spec_name
from swarmcore.controlapi.tasks import runtime_of
from swarmcore.controlapi.validate.bounds import brief_list, check_id, check_request
from swarmcore.controlapi.validate.service import check_port_conflicts, check_service_spec, is_job, needs_ingress
from swarmcore.errors import FailedPreconditionError, InvalidArgumentError, UnimplementedError
from swarmcore.store.transaction import Tables, Transaction

MAX_STATUSES_BYTES = 4 * 1024 * 1024
INGRESS_NAME = "ingress"
INTERNAL_LABEL = "com.docker.swarm.internal"
ServiceStatus = ListServiceStatusesResponse.ServiceStatus

_RUNNING = TaskState.RUNNING
_COMPLETE = TaskState.COMPLETE
_DOWN = NodeStatus.DOWN
_SECRET = ResourceType.SECRET
_CONFIG = ResourceType.CONFIG


def is_ingress(network: Network) -> bool:
    spec = network.spec
    return bool(spec.ingress or (spec.annotations.name == INGRESS_NAME and INTERNAL_LABEL in spec.annotations.labels))


class ServiceCalls(Calls):
    async def CreateService(self, request: CreateServiceRequest, context: object) -> CreateServiceResponse:
        check_request(request)
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        spec = request.spec
        check_service_spec(spec)
        if spec.task.container.pull_options.registry_auth == HIDDEN:
            raise InvalidArgumentError(
                "ContainerSpec: task.container.pull_options.registry_auth is hidden where it is read: give the login"
            )

        def write(tx: Transaction) -> Service:
            self._check_references(tx, spec)
            self._check_networks(tx, spec)
            check_port_conflicts(spec, "", tx.service.all() if spec.endpoint.ports else ())
            service = Service(id=self.new_id(), spec=spec)
            service.spec_version.index = 0
            service.spec_version.SetInParent()
            if is_job(spec):
                service.job_status.job_iteration.SetInParent()
                service.job_status.last_execution.CopyFrom(self.now())
            tx.service.create(service)
            return service

        return CreateServiceResponse(service=public_service(await self.store.update(write)))

    def _check_references(self, tx: Transaction, spec: ServiceSpec) -> None:
        container = spec.task.container
        references: Mapping[str, list[tuple[str, str]]] = {
            "secret": [(ref.secret_id, ref.secret_name) for ref in container.secrets],
            "config": [(ref.config_id, ref.config_name) for ref in container.configs],
        }
        ids = {
            "secret": [ref.resource_id for ref in spec.task.resource_references if ref.resource_type == _SECRET],
            "config": [ref.resource_id for ref in spec.task.resource_references if ref.resource_type == _CONFIG],
        }
        for kind, wanted in references.items():
            missing = [id for id in ids[kind] if tx.table(kind).get(id) is None]
            for id, name in wanted:
                found = tx.table(kind).get(id)
                if found is None or found.spec.annotations.name != name:
                    missing.append(name)
            if missing:
                word = kind if len(missing) == 1 else f"{kind}s"
                raise InvalidArgumentError(f"{word} not found: {brief_list(missing)}: create them before the service")

    def _check_networks(self, tx: Transaction, spec: ServiceSpec) -> None:
        for attachment in (*spec.task.networks, *spec.networks):
            network = tx.network.get(attachment.target)
            if network is not None and is_ingress(network):
                raise InvalidArgumentError(
                    "service cannot be explicitly attached to the ingress network "
                    f"{network.spec.annotations.name!r}: leave it out of task.networks"
                )
        if needs_ingress(spec) and not any(is_ingress(network) for network in tx.network.all()):
            raise FailedPreconditionError(
                "service needs ingress network, but no ingress network is present: "
                "create one, or publish the ports in host mode"
            )

    async def GetService(self, request: GetServiceRequest, context: object) -> GetServiceResponse:
        service = self.store.view.service.get(check_id(request.service_id, "service_id"))
        if service is None:
            raise not_found("service", request.service_id)
        return GetServiceResponse(
            service=public_service(with_defaults(service) if request.insert_defaults else service)
        )

    async def ListServices(self, request: ListServicesRequest, context: object) -> ListServicesResponse:
        check_request(request)
        filters = request.filters
        predicates: list[Predicate] = common_predicates(
            filters, spec_name, lambda service: service.spec.annotations.labels
        )
        if filters.runtimes:
            runtimes = frozenset(filters.runtimes)
            predicates.append(lambda service: runtime_of(service.spec.task) in runtimes)
        response = ListServicesResponse()
        services = await matching(candidates(self.store.view.service, filters), predicates)
        await fill(response.services, services, public_service)
        return response

    async def UpdateService(self, request: UpdateServiceRequest, context: object) -> UpdateServiceResponse:
        check_request(request)
        service_id = check_id(request.service_id, "service_id")
        version = require_version(request.HasField("service_version"), request.service_version, "service_version")
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        check_service_spec(request.spec)

        def write(tx: Transaction) -> Service:
            old = tx.service.get(service_id)
            if old is None:
                raise not_found("service", service_id)
            self._check_change(old, request.spec)
            is_rollback = request.rollback == UpdateServiceRequest.PREVIOUS
            if is_rollback and not old.HasField("previous_spec"):
                raise FailedPreconditionError(
                    f"service {service_id} does not have a previous spec: nothing to roll back to"
                )
            # A rollback is held to the rules too: secrets may have gone since, and ports may have been taken.
            self._check_surroundings(tx, old, old.previous_spec if is_rollback else request.spec)
            service = Service()
            service.CopyFrom(old)
            service.meta.version.index = version
            if is_rollback:
                _roll_back(service, old, self.now())
            else:
                _replace_spec(service, old, with_login(request.spec, old.spec), version)
            if is_job(service.spec):
                service.job_status.job_iteration.index += 1
                service.job_status.last_execution.CopyFrom(self.now())
            tx.service.update(service)
            return service

        return UpdateServiceResponse(service=public_service(await self.store.update(write)))

    def _check_change(self, old: Service, spec: ServiceSpec) -> None:
        same_task_networks = list(spec.task.networks) == list(old.spec.task.networks)
        if same_task_networks and list(spec.networks) != list(old.spec.networks):
            raise UnimplementedError(
                "networks must be migrated to TaskSpec before being changed: set task.networks, and leave networks"
            )
        if spec.WhichOneof("mode") != old.spec.WhichOneof("mode"):
            raise UnimplementedError("service mode change is not allowed: remove the service and create it anew")
        if spec.annotations.name != old.spec.annotations.name:
            raise UnimplementedError("renaming services is not supported: annotations.name must stay as it is")

    def _check_surroundings(self, tx: Transaction, old: Service, spec: ServiceSpec) -> None:
        if spec.HasField("endpoint") and spec.endpoint != old.spec.endpoint:
            check_port_conflicts(spec, old.id, tx.service.all())
        self._check_references(tx, spec)
        self._check_networks(tx, spec)

    async def RemoveService(self, request: RemoveServiceRequest, context: object) -> RemoveServiceResponse:
        service_id = check_id(request.service_id, "service_id")

        def write(tx: Transaction) -> None:
            if tx.service.get(service_id) is None:
                raise not_found("service", service_id)
            tx.service.delete(service_id)

        await self.store.update(write)
        return RemoveServiceResponse()

    async def ListServiceStatuses(
        self, request: ListServiceStatusesRequest, context: object
    ) -> ListServiceStatusesResponse:
        if request.ByteSize() > MAX_STATUSES_BYTES:
            raise InvalidArgumentError(f"services: at most {MAX_STATUSES_BYTES} bytes of ids are taken: ask in parts")
        counted: dict[str, ServiceStatus] = {}
        response = ListServiceStatusesResponse()
        for service_id in request.services:
            if service_id not in counted:
                counted[service_id] = await self._count_tasks(service_id)
            response.statuses.append(counted[service_id])
        return response

    async def _count_tasks(self, service_id: str) -> ServiceStatus:
        """Zeros for a service that is not there."""
        status = ServiceStatus(service_id=service_id)
        service = self.store.view.service.get(service_id)
        if service is not None:
            tally = _Tally(service, self.store.view, status)
            await matching(self.store.view.task.by("service", service_id), [tally.add])
        return status


def _replace_spec(service: Service, old: Service, spec: ServiceSpec, version: int) -> None:
    service.previous_spec.CopyFrom(old.spec)
    service.ClearField("previous_spec_version")
    if old.HasField("spec_version"):
        service.previous_spec_version.CopyFrom(old.spec_version)
    service.spec.CopyFrom(spec)
    service.spec_version.index = version
    service.ClearField("update_status")


def _roll_back(service: Service, old: Service, now: Timestamp) -> None:
    service.spec.CopyFrom(old.previous_spec)
    service.previous_spec.CopyFrom(old.spec)
    service.ClearField("spec_version")
    service.ClearField("previous_spec_version")
    if old.HasField("previous_spec_version"):
        service.spec_version.CopyFrom(old.previous_spec_version)
    if old.HasField("spec_version"):
        service.previous_spec_version.CopyFrom(old.spec_version)
    service.update_status.Clear()
    service.update_status.state = UpdateStatus.ROLLBACK_STARTED
    service.update_status.message = "manually requested rollback"
    service.update_status.started_at.CopyFrom(now)


class _Tally:
    """Counts the tasks of one service. What runs on a node that is down is not counted as running."""

    def __init__(self, service: Service, view: Tables, status: ServiceStatus) -> None:
        self._service = service
        self._nodes = view.node
        self._status = status
        mode = service.spec.WhichOneof("mode")
        self._is_global = mode in ("global", "global_job")
        self._is_job = is_job(service.spec)
        self._iteration = service.job_status.job_iteration.index
        if mode == "replicated":
            status.desired_tasks = service.spec.replicated.replicas
        elif mode == "replicated_job":
            status.desired_tasks = service.spec.replicated_job.max_concurrent

    def add(self, task: Task) -> bool:
        # Called for every task of a service, again and again while it starts.
        state, desired, status = task.status.state, task.desired_state, self._status
        if self._is_job and task.job_iteration.index != self._iteration:
            return False
        if state == _RUNNING:
            node = self._nodes.get(task.node_id)
            if node is None or node.status.state != _DOWN:
                status.running_tasks += 1
        if self._is_global:
            is_left_to_do = self._is_job and desired == _COMPLETE and state != _COMPLETE
            if desired == _RUNNING or is_left_to_do:
                status.desired_tasks += 1
        if self._is_job and state == _COMPLETE:
            status.completed_tasks += 1
        return False

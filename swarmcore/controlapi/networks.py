"""Networks (SwarmKit: 2.6). There is no network provider yet: those with a driver are refused."""

from __future__ import annotations

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Network
from swarmcore.api.types_pb2 import TaskState
from swarmcore.controlapi.calls import Calls, not_found
from swarmcore.controlapi.select import candidates, common_predicates, fill, matching, spec_name
from swarmcore.controlapi.services import is_ingress
from swarmcore.controlapi.validate.bounds import check_id, check_request
from swarmcore.controlapi.validate.objects import PREDEFINED_LABEL, check_network
from swarmcore.controlapi.validate.service import needs_ingress
from swarmcore.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
)
from swarmcore.store.transaction import Transaction


class NetworkCalls(Calls):
    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: object) -> pb.CreateNetworkResponse:
        check_request(request)
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        check_network(request.spec)
        network = Network(id=self.new_id(), spec=request.spec)

        def write(tx: Transaction) -> None:
            if is_ingress(network) and any(is_ingress(other) for other in tx.network.all()):
                raise AlreadyExistsError("ingress network (another one) is already present: remove it first")
            tx.network.create(network)

        await self.store.update(write)
        return pb.CreateNetworkResponse(network=network)

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: object) -> pb.GetNetworkResponse:
        network = self.store.view.network.get(check_id(request.network_id, "network_id"))
        if network is None:
            raise not_found("network", request.network_id)
        return pb.GetNetworkResponse(network=network)

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: object) -> pb.ListNetworksResponse:
        check_request(request)
        filters = request.filters
        predicates = common_predicates(filters, spec_name, lambda network: network.spec.annotations.labels)
        response = pb.ListNetworksResponse()
        await fill(response.networks, await matching(candidates(self.store.view.network, filters), predicates))
        return response

    async def RemoveNetwork(self, request: pb.RemoveNetworkRequest, context: object) -> pb.RemoveNetworkResponse:
        network_id = check_id(request.network_id, "network_id")

        def write(tx: Transaction) -> None:
            network = tx.network.get(network_id)
            if network is None:
                raise not_found("network", network_id)
            _check_removal(tx, network)
            tx.network.delete(network_id)

        await self.store.update(write)
        return pb.RemoveNetworkResponse()


def _check_removal(tx: Transaction, network: Network) -> None:
    name = network.spec.annotations.name
    if network.spec.annotations.labels.get(PREDEFINED_LABEL) == "true":
        raise FailedPreconditionError(f"network {name} is a pre-defined network and cannot be removed")
    if is_ingress(network):
        user = next((service for service in tx.service.all() if needs_ingress(service.spec)), None)
        if user is not None:
            raise FailedPreconditionError(f"ingress network cannot be removed because service {user.id} depends on it")
        return
    for service in tx.service.by("network", network.id):
        raise FailedPreconditionError(f"network {name} is in use by service {service.id}: remove that first")
    for task in tx.task.all():
        is_live = task.desired_state <= TaskState.RUNNING and task.status.state <= TaskState.RUNNING
        if is_live and any(attachment.network.id == network.id for attachment in task.networks):
            raise FailedPreconditionError(f"network {name} is in use by task {task.id}: wait until it has ended")

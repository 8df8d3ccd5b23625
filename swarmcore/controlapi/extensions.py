"""Extensions and resources: kinds of objects that other software brings along, and those objects (SwarmKit: 2.9)."""

from __future__ import annotations

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Extension, Resource
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.select import any_name_predicates, fill, matching, own_name
from swarmcore.controlapi.validate.bounds import brief, brief_list, check_id, check_request
from swarmcore.controlapi.validate.names import check_free_name
from swarmcore.errors import AlreadyExistsError, InvalidArgumentError
from swarmcore.store.tables import SCHEMA_OF
from swarmcore.store.transaction import Transaction


class ExtensionCalls(Calls):
    async def CreateExtension(self, request: pb.CreateExtensionRequest, context: object) -> pb.CreateExtensionResponse:
        check_request(request)
        name = request.annotations.name
        check_free_name(name, "extension name: annotations.name")
        if name.lower() in SCHEMA_OF:
            raise AlreadyExistsError(f"extension {brief(name)} conflicts with a built-in kind of object: rename it")
        extension = Extension(id=self.new_id(), annotations=request.annotations, description=request.description)

        def write(tx: Transaction) -> None:
            tx.extension.create(extension)

        await self.store.update(write)
        return pb.CreateExtensionResponse(extension=extension)

    async def GetExtension(self, request: pb.GetExtensionRequest, context: object) -> pb.GetExtensionResponse:
        extension = self.store.view.extension.get(check_id(request.extension_id, "extension_id"))
        if extension is None:
            raise not_found("extension", request.extension_id)
        return pb.GetExtensionResponse(extension=extension)

    async def RemoveExtension(self, request: pb.RemoveExtensionRequest, context: object) -> pb.RemoveExtensionResponse:
        extension_id = check_id(request.extension_id, "extension_id")

        def write(tx: Transaction) -> None:
            extension = tx.extension.get(extension_id)
            if extension is None:
                raise not_found("extension", extension_id)
            used = sorted(own_name(resource) for resource in tx.resource.by("kind", own_name(extension)))
            if used:
                raise InvalidArgumentError(
                    f"extension {brief(own_name(extension))} is in use by resources: {brief_list(used)}: "
                    "remove them first"
                )
            tx.extension.delete(extension_id)

        await self.store.update(write)
        return pb.RemoveExtensionResponse()

    async def CreateResource(self, request: pb.CreateResourceRequest, context: object) -> pb.CreateResourceResponse:
        check_request(request)
        check_free_name(request.annotations.name, "resource name: annotations.name")
        if not request.kind:
            raise InvalidArgumentError("resource must belong to a kind: kind is empty")
        resource = Resource(id=self.new_id(), annotations=request.annotations, kind=request.kind)
        if request.HasField("payload"):
            resource.payload.CopyFrom(request.payload)

        def write(tx: Transaction) -> None:
            if not any(own_name(extension) == request.kind for extension in tx.extension.by_name(request.kind)):
                raise InvalidArgumentError(f"Kind {brief(request.kind)} is not registered: create the extension first")
            tx.resource.create(resource)

        await self.store.update(write)
        return pb.CreateResourceResponse(resource=resource)

    async def GetResource(self, request: pb.GetResourceRequest, context: object) -> pb.GetResourceResponse:
        resource = self.store.view.resource.get(check_id(request.resource_id, "resource_id"))
        if resource is None:
            raise not_found("resource", request.resource_id)
        return pb.GetResourceResponse(resource=resource)

    async def ListResources(self, request: pb.ListResourcesRequest, context: object) -> pb.ListResourcesResponse:
        check_request(request)
        filters, table = request.filters, self.store.view.resource
        predicates = any_name_predicates(filters, own_name, lambda resource: resource.annotations.labels)
        objects = table.by("kind", filters.kind) if filters.kind else table.all()
        response = pb.ListResourcesResponse()
        await fill(response.resources, await matching(objects, predicates))
        return response

    async def UpdateResource(self, request: pb.UpdateResourceRequest, context: object) -> pb.UpdateResourceResponse:
        check_request(request)
        resource_id = check_id(request.resource_id, "resource_id")
        version = require_version(request.HasField("resource_version"), request.resource_version, "resource_version")

        def write(tx: Transaction) -> Resource:
            old = tx.resource.get(resource_id)
            if old is None:
                raise not_found("resource", resource_id)
            if old.meta.version.index != version:
                raise InvalidArgumentError("update out of sequence: read the resource again")
            resource = Resource()
            resource.CopyFrom(old)
            if request.HasField("annotations"):
                if request.annotations.name != own_name(old):
                    raise InvalidArgumentError("resource name can't be changed: annotations.name must stay as it is")
                resource.annotations.CopyFrom(request.annotations)
            if request.HasField("payload"):
                resource.payload.CopyFrom(request.payload)
            tx.resource.update(resource)
            return resource

        return pb.UpdateResourceResponse(resource=await self.store.update(write))

    async def RemoveResource(self, request: pb.RemoveResourceRequest, context: object) -> pb.RemoveResourceResponse:
        resource_id = check_id(request.resource_id, "resource_id")

        def write(tx: Transaction) -> None:
            if tx.resource.get(resource_id) is None:
                raise not_found("resource", resource_id)
            tx.resource.delete(resource_id)

        await self.store.update(write)
        return pb.RemoveResourceResponse()

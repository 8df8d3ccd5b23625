"""Cluster volumes (SwarmKit: 2.8)."""

from __future__ import annotations

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Volume
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.select import Predicate, candidates, common_predicates, fill, matching, spec_name
from swarmcore.controlapi.validate.bounds import brief_list, check_id, check_request
from swarmcore.controlapi.validate.objects import check_volume, check_volume_update
from swarmcore.errors import FailedPreconditionError, InvalidArgumentError
from swarmcore.store.transaction import Transaction


class VolumeCalls(Calls):
    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: object) -> pb.CreateVolumeResponse:
        check_request(request)
        if not request.HasField("spec"):
            raise InvalidArgumentError("spec must not be nil: spec is missing")
        check_volume(request.spec)
        volume = Volume(id=self.new_id(), spec=request.spec)

        def write(tx: Transaction) -> None:
            missing = [ref.secret for ref in volume.spec.secrets if ref.secret not in tx.secret]
            if missing:
                raise InvalidArgumentError(f"secrets not found: {brief_list(missing)}: create them before the volume")
            tx.volume.create(volume)

        await self.store.update(write)
        return pb.CreateVolumeResponse(volume=volume)

    async def GetVolume(self, request: pb.GetVolumeRequest, context: object) -> pb.GetVolumeResponse:
        volume = self.store.view.volume.get(request.volume_id)
        if volume is None:
            raise not_found("volume", request.volume_id)
        return pb.GetVolumeResponse(volume=volume)

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: object) -> pb.ListVolumesResponse:
        check_request(request)
        filters = request.filters
        predicates: list[Predicate] = common_predicates(
            filters, spec_name, lambda volume: volume.spec.annotations.labels
        )
        if filters.groups:
            groups = frozenset(filters.groups)
            predicates.append(lambda volume: volume.spec.group in groups)
        if filters.drivers:
            drivers = frozenset(filters.drivers)
            predicates.append(lambda volume: volume.spec.driver.name in drivers)
        response = pb.ListVolumesResponse()
        await fill(response.volumes, await matching(candidates(self.store.view.volume, filters), predicates))
        return response

    async def UpdateVolume(self, request: pb.UpdateVolumeRequest, context: object) -> pb.UpdateVolumeResponse:
        check_request(request)
        volume_id = check_id(request.volume_id, "volume_id")
        version = require_version(request.HasField("volume_version"), request.volume_version, "volume_version")
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")

        def write(tx: Transaction) -> Volume:
            old = tx.volume.get(volume_id)
            if old is None:
                raise not_found("volume", volume_id)
            check_volume_update(old.spec, request.spec)
            volume = Volume()
            volume.CopyFrom(old)
            volume.meta.version.index = version
            volume.spec.annotations.ClearField("labels")
            volume.spec.annotations.labels.update(request.spec.annotations.labels)
            volume.spec.availability = request.spec.availability
            tx.volume.update(volume)
            return volume

        return pb.UpdateVolumeResponse(volume=await self.store.update(write))

    async def RemoveVolume(self, request: pb.RemoveVolumeRequest, context: object) -> pb.RemoveVolumeResponse:
        volume_id = check_id(request.volume_id, "volume_id")

        def write(tx: Transaction) -> None:
            old = tx.volume.get(volume_id)
            if old is None:
                raise not_found("volume", volume_id)
            if request.force:
                tx.volume.delete(volume_id)
                return
            if old.publish_status:
                raise FailedPreconditionError("volume is still in use: stop what uses it, or remove it with force")
            volume = Volume()
            volume.CopyFrom(old)
            volume.pending_delete = True
            tx.volume.update(volume)

        await self.store.update(write)
        return pb.RemoveVolumeResponse()

"""Configs: as secrets, and their data is returned (SwarmKit: 2.7)."""

from __future__ import annotations

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Config
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.secrets import check_unused, relabelled
from swarmcore.controlapi.select import any_name_predicates, fill, matching, spec_name
from swarmcore.controlapi.validate.bounds import check_id, check_request
from swarmcore.controlapi.validate.objects import MAX_CONFIG_BYTES, check_config
from swarmcore.errors import InvalidArgumentError
from swarmcore.store.transaction import Transaction

MAX_REQUEST_BYTES = MAX_CONFIG_BYTES + 256 * 1024


class ConfigCalls(Calls):
    async def CreateConfig(self, request: pb.CreateConfigRequest, context: object) -> pb.CreateConfigResponse:
        check_request(request, MAX_REQUEST_BYTES)
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        check_config(request.spec)
        config = Config(id=self.new_id(), spec=request.spec)

        def write(tx: Transaction) -> None:
            tx.config.create(config)

        await self.store.update(write)
        return pb.CreateConfigResponse(config=config)

    async def GetConfig(self, request: pb.GetConfigRequest, context: object) -> pb.GetConfigResponse:
        config = self.store.view.config.get(check_id(request.config_id, "config_id"))
        if config is None:
            raise not_found("config", request.config_id)
        return pb.GetConfigResponse(config=config)

    async def ListConfigs(self, request: pb.ListConfigsRequest, context: object) -> pb.ListConfigsResponse:
        check_request(request)
        predicates = any_name_predicates(request.filters, spec_name, lambda config: config.spec.annotations.labels)
        response = pb.ListConfigsResponse()
        await fill(response.configs, await matching(self.store.view.config.all(), predicates))
        return response

    async def UpdateConfig(self, request: pb.UpdateConfigRequest, context: object) -> pb.UpdateConfigResponse:
        check_request(request, MAX_REQUEST_BYTES)
        config_id = check_id(request.config_id, "config_id")
        version = require_version(request.HasField("config_version"), request.config_version, "config_version")

        def write(tx: Transaction) -> Config:
            old = tx.config.get(config_id)
            if old is None:
                raise not_found("config", config_id)
            config = relabelled(old, request.spec, version)
            tx.config.update(config)
            return config

        return pb.UpdateConfigResponse(config=await self.store.update(write))

    async def RemoveConfig(self, request: pb.RemoveConfigRequest, context: object) -> pb.RemoveConfigResponse:
        config_id = check_id(request.config_id, "config_id")

        def write(tx: Transaction) -> None:
            config = tx.config.get(config_id)
            if config is None:
                raise not_found("config", config_id)
            check_unused(tx, "config", config_id, spec_name(config))
            tx.config.delete(config_id)

        await self.store.update(write)
        return pb.RemoveConfigResponse()

"""Secrets and configs: values that containers get as files (SwarmKit: 2.7). The data of a secret is never returned."""

from __future__ import annotations

from typing import TypeVar

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Config, Secret
from swarmcore.api.specs_pb2 import ConfigSpec, SecretSpec
from swarmcore.controlapi.calls import Calls, not_found, require_version
from swarmcore.controlapi.redact import public_secret
from swarmcore.controlapi.select import any_name_predicates, fill, matching, spec_name
from swarmcore.controlapi.validate.bounds import MAX_SPEC_BYTES, brief, brief_list, check_id, check_request
from swarmcore.controlapi.validate.objects import MAX_SECRET_BYTES, check_secret, only_labels_changed
from swarmcore.errors import FailedPreconditionError, InvalidArgumentError
from swarmcore.store.transaction import Transaction

S = TypeVar("S", Secret, Config)

MAX_REQUEST_BYTES = MAX_SPEC_BYTES + MAX_SECRET_BYTES


def check_unused(tx: Transaction, kind: str, id: str, name: str) -> None:
    """Refuse to remove what a service names; a task that still has it does not count."""
    users = sorted(service.spec.annotations.name for service in tx.service.by(kind, id))
    if users:
        word = "service" if len(users) == 1 else "services"
        raise InvalidArgumentError(
            f"{kind} '{name}' is in use by the following {word}: {brief_list(users)}: take it out of them first"
        )


def relabelled(old: S, wanted: SecretSpec | ConfigSpec, version: int) -> S:
    """A secret or config with the labels of `wanted`; raises InvalidArgumentError where it asks for another change."""
    only_labels_changed(wanted.annotations.name, spec_name(old), wanted.data, old.spec.data)
    new = type(old)()
    new.CopyFrom(old)
    new.meta.version.index = version
    new.spec.annotations.ClearField("labels")
    new.spec.annotations.labels.update(wanted.annotations.labels)
    return new


class SecretCalls(Calls):
    async def CreateSecret(self, request: pb.CreateSecretRequest, context: object) -> pb.CreateSecretResponse:
        check_request(request, MAX_REQUEST_BYTES)
        if not request.HasField("spec"):
            raise InvalidArgumentError("invalid argument: spec is missing")
        check_secret(request.spec)
        if request.spec.HasField("driver"):
            raise FailedPreconditionError(
                f"secret driver {brief(request.spec.driver.name)!r} is not available: no plugin provides it; "
                "leave driver out and give the data"
            )
        secret = Secret(id=self.new_id(), spec=request.spec)

        def write(tx: Transaction) -> None:
            tx.secret.create(secret)

        await self.store.update(write)
        return pb.CreateSecretResponse(secret=public_secret(secret))

    async def GetSecret(self, request: pb.GetSecretRequest, context: object) -> pb.GetSecretResponse:
        secret = self.store.view.secret.get(check_id(request.secret_id, "secret_id"))
        if secret is None:
            raise not_found("secret", request.secret_id)
        return pb.GetSecretResponse(secret=public_secret(secret))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: object) -> pb.ListSecretsResponse:
        check_request(request)
        predicates = any_name_predicates(request.filters, spec_name, lambda secret: secret.spec.annotations.labels)
        predicates.append(lambda secret: not secret.internal)
        response = pb.ListSecretsResponse()
        await fill(response.secrets, await matching(self.store.view.secret.all(), predicates), public_secret)
        return response

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, context: object) -> pb.UpdateSecretResponse:
        check_request(request, MAX_REQUEST_BYTES)
        secret_id = check_id(request.secret_id, "secret_id")
        version = require_version(request.HasField("secret_version"), request.secret_version, "secret_version")

        def write(tx: Transaction) -> Secret:
            old = tx.secret.get(secret_id)
            if old is None:
                raise not_found("secret", secret_id)
            secret = relabelled(old, request.spec, version)
            tx.secret.update(secret)
            return secret

        return pb.UpdateSecretResponse(secret=public_secret(await self.store.update(write)))

    async def RemoveSecret(self, request: pb.RemoveSecretRequest, context: object) -> pb.RemoveSecretResponse:
        secret_id = check_id(request.secret_id, "secret_id")

        def write(tx: Transaction) -> None:
            secret = tx.secret.get(secret_id)
            if secret is None:
                raise not_found("secret", secret_id)
            check_unused(tx, "secret", secret_id, spec_name(secret))
            tx.secret.delete(secret_id)

        await self.store.update(write)
        return pb.RemoveSecretResponse()

"""Secrets and configs: sizes, names, what may change, what is shown."""

# ruff: noqa: S105, S106 - ids and names of secrets are not secret
from __future__ import annotations

from typing import Any

import pytest

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Config, Secret, Service
from swarmcore.api.specs_pb2 import ConfigSpec, SecretSpec, ServiceSpec
from swarmcore.api.types_pb2 import Annotations, ConfigReference, Driver, SecretReference, Version
from swarmcore.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    SequenceConflictError,
)


def secret_spec(name: str = "key", data: bytes = b"hunter2", **more: Any) -> SecretSpec:
    return SecretSpec(annotations=Annotations(name=name), data=data, **more)


def config_spec(name: str = "conf", data: bytes = b"a=b", **more: Any) -> ConfigSpec:
    return ConfigSpec(annotations=Annotations(name=name), data=data, **more)


async def create_secret(setup: Any, spec: SecretSpec) -> Secret:
    made: Secret = (await setup.control.CreateSecret(pb.CreateSecretRequest(spec=spec), None)).secret
    return made


async def create_config(setup: Any, spec: ConfigSpec) -> Config:
    made: Config = (await setup.control.CreateConfig(pb.CreateConfigRequest(spec=spec), None)).config
    return made


async def test_the_data_of_a_secret_goes_in_and_never_out(setup: Any) -> None:
    made = await create_secret(setup, secret_spec())
    got = (await setup.control.GetSecret(pb.GetSecretRequest(secret_id=made.id), None)).secret
    listed = (await setup.control.ListSecrets(pb.ListSecretsRequest(), None)).secrets
    changed = (
        await setup.control.UpdateSecret(
            pb.UpdateSecretRequest(secret_id=made.id, secret_version=made.meta.version, spec=secret_spec()), None
        )
    ).secret

    assert [shown.spec.data for shown in (made, got, *listed, changed)] == [b""] * 4
    assert setup.store.view.secret.get(made.id).spec.data == b"hunter2"


async def test_the_data_of_a_config_is_shown(setup: Any) -> None:
    made = await create_config(setup, config_spec())

    got = (await setup.control.GetConfig(pb.GetConfigRequest(config_id=made.id), None)).config

    assert got == made
    assert got.spec.data == b"a=b"


async def test_the_largest_that_are_taken(setup: Any) -> None:
    await create_secret(setup, secret_spec(data=b"x" * 511_999))
    await create_config(setup, config_spec(data=b"x" * 1_023_999))


TOO_MUCH_SECRET = "secret data must be larger than 0 and less than 512000 bytes"
TOO_MUCH_CONFIG = "config data must be larger than 0 and less than 1024000 bytes"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (secret_spec(data=b""), TOO_MUCH_SECRET),
        (secret_spec(data=b"x" * 512_000), TOO_MUCH_SECRET),
        (secret_spec(data=b"x" * 3_000_000), "the request has"),
        (secret_spec(name=""), "invalid name: annotations.name"),
        (secret_spec(name="a/b"), "invalid name: annotations.name"),
        (secret_spec(templating=Driver(name="jinja")), "unrecognized template type: templating.name 'jinja'"),
        (secret_spec(driver=Driver()), "secret driver must have a name: driver.name is empty"),
    ],
)
async def test_what_is_no_secret(setup: Any, spec: SecretSpec, text: str) -> None:
    await setup.refused(create_secret(setup, spec), InvalidArgumentError, text)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (config_spec(data=b""), TOO_MUCH_CONFIG),
        (config_spec(data=b"x" * 1_024_000), TOO_MUCH_CONFIG),
        (config_spec(name="x" * 65), "invalid name: annotations.name"),
        (config_spec(templating=Driver(name="Golang")), "unrecognized template type: templating.name"),
    ],
)
async def test_what_is_no_config(setup: Any, spec: ConfigSpec, text: str) -> None:
    await setup.refused(create_config(setup, spec), InvalidArgumentError, text)


async def test_a_secret_from_a_driver_needs_a_plugin_that_has_it(setup: Any) -> None:
    call = create_secret(setup, secret_spec(driver=Driver(name="vault")))

    await setup.refused(call, FailedPreconditionError, "secret driver 'vault' is not available")


async def test_a_missing_spec_is_named(setup: Any) -> None:
    for call in (
        setup.control.CreateSecret(pb.CreateSecretRequest(), None),
        setup.control.CreateConfig(pb.CreateConfigRequest(), None),
    ):
        await setup.refused(call, InvalidArgumentError, "spec is missing")


async def test_names_are_taken_whatever_their_case(setup: Any) -> None:
    await create_secret(setup, secret_spec("key"))
    await create_config(setup, config_spec("conf"))

    await setup.refused(create_secret(setup, secret_spec("KEY")), AlreadyExistsError, "already exists")
    await setup.refused(create_config(setup, config_spec("CONF")), AlreadyExistsError, "already exists")


async def update_secret(setup: Any, id: str, version: int, spec: SecretSpec) -> Secret:
    request = pb.UpdateSecretRequest(secret_id=id, secret_version=Version(index=version), spec=spec)
    changed: Secret = (await setup.control.UpdateSecret(request, None)).secret
    return changed


async def update_config(setup: Any, id: str, version: int, spec: ConfigSpec) -> Config:
    request = pb.UpdateConfigRequest(config_id=id, config_version=Version(index=version), spec=spec)
    changed: Config = (await setup.control.UpdateConfig(request, None)).config
    return changed


async def test_only_labels_change(setup: Any) -> None:
    secret = await create_secret(setup, secret_spec())
    config = await create_config(setup, config_spec())
    labels = {"a": "b"}
    text = "only updates to Labels are allowed"

    for wrong in (secret_spec("other"), secret_spec(data=b"other")):
        await setup.refused(update_secret(setup, secret.id, 1, wrong), InvalidArgumentError, text)
    for other in (config_spec("other"), config_spec(data=b"other")):
        await setup.refused(update_config(setup, config.id, 2, other), InvalidArgumentError, text)
    new_secret = secret_spec(data=b"")
    new_secret.annotations.labels.update(labels)
    new_config = config_spec()
    new_config.annotations.labels.update(labels)

    assert (await update_secret(setup, secret.id, 1, new_secret)).spec.annotations.labels == labels
    assert (await update_config(setup, config.id, 2, new_config)).spec.annotations.labels == labels
    assert setup.store.view.secret.get(secret.id).spec.data == b"hunter2"
    assert setup.store.view.config.get(config.id).spec.data == b"a=b"
    await setup.refused(update_secret(setup, secret.id, 1, new_secret), SequenceConflictError, "out of sequence")
    await setup.refused(update_config(setup, config.id, 2, new_config), SequenceConflictError, "out of sequence")
    await setup.refused(update_secret(setup, "nothing", 1, new_secret), NotFoundError, "secret nothing not found")
    await setup.refused(update_config(setup, "nothing", 1, new_config), NotFoundError, "config nothing not found")
    await setup.refused(update_config(setup, "", 1, new_config), InvalidArgumentError, "config_id is empty")
    request = pb.UpdateSecretRequest(secret_id=secret.id, spec=new_secret)
    await setup.refused(setup.control.UpdateSecret(request, None), InvalidArgumentError, "secret_version is missing")


async def test_what_services_name_stays(setup: Any) -> None:
    secret = await create_secret(setup, secret_spec())
    config = await create_config(setup, config_spec())
    for name in ("beta", "alpha"):
        service = Service(id=name, spec=ServiceSpec(annotations=Annotations(name=name)))
        service.spec.task.container.secrets.append(SecretReference(secret_id=secret.id, secret_name="key"))
        if name == "beta":
            service.spec.task.container.configs.append(ConfigReference(config_id=config.id, config_name="conf"))
        await setup.put(service)

    async def remove_secret() -> None:
        await setup.control.RemoveSecret(pb.RemoveSecretRequest(secret_id=secret.id), None)

    async def remove_config() -> None:
        await setup.control.RemoveConfig(pb.RemoveConfigRequest(config_id=config.id), None)

    text = "secret 'key' is in use by the following services: alpha, beta"
    await setup.refused(remove_secret(), InvalidArgumentError, text)
    text = "config 'conf' is in use by the following service: beta"
    await setup.refused(remove_config(), InvalidArgumentError, text)
    for name in ("alpha", "beta"):
        await setup.control.RemoveService(pb.RemoveServiceRequest(service_id=name), None)
    await remove_secret()
    await remove_config()
    await setup.refused(remove_secret(), NotFoundError, "not found")
    await setup.refused(remove_config(), NotFoundError, "not found")


async def test_listing_takes_any_of_the_names_and_all_of_the_labels(setup: Any) -> None:
    for name in ("alpha", "beta", "gamma"):
        spec = secret_spec(name)
        spec.annotations.labels["kind"] = name[0]
        await setup.put(Secret(id=f"id-{name}", spec=spec))
        await setup.put(Config(id=f"id-{name}", spec=ConfigSpec(annotations=spec.annotations, data=b"x")))
    await setup.put(Secret(id="internal", spec=secret_spec("internal"), internal=True))

    async def names(**filters: Any) -> list[str]:
        secrets = pb.ListSecretsRequest(filters=pb.ListSecretsRequest.Filters(**filters))
        configs = pb.ListConfigsRequest(filters=pb.ListConfigsRequest.Filters(**filters))
        found = [shown.spec.annotations.name for shown in (await setup.control.ListSecrets(secrets, None)).secrets]
        same = [shown.spec.annotations.name for shown in (await setup.control.ListConfigs(configs, None)).configs]
        assert found == same
        return found

    assert await names() == ["alpha", "beta", "gamma"]
    assert await names(names=["alpha"], id_prefixes=["id-b"], name_prefixes=["ga"]) == ["alpha", "beta", "gamma"]
    assert await names(names=["alpha"], name_prefixes=["b"]) == ["alpha", "beta"]
    assert await names(names=["alpha"], id_prefixes=["id-b"], labels={"kind": "b"}) == ["beta"]
    assert await names(labels={"kind": ""}) == ["alpha", "beta", "gamma"]

"""Networks, extensions, resources and volumes."""

# ruff: noqa: S106 - ids and names of secrets are not secret
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Network, Secret, Service, Task, Volume
from swarmcore.api.specs_pb2 import NetworkSpec, SecretSpec, ServiceSpec, VolumeSpec
from swarmcore.api.types_pb2 import (
    Annotations,
    CapacityRange,
    Driver,
    IPAMConfig,
    IPAMOptions,
    NetworkAttachmentConfig,
    TaskState,
    Version,
    VolumeAccessMode,
    VolumePublishStatus,
    VolumeSecret,
)
from swarmcore.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    SequenceConflictError,
)

PREDEFINED = "com.docker.swarm.predefined"


def network(name: str = "back", **more: Any) -> NetworkSpec:
    return NetworkSpec(annotations=Annotations(name=name), **more)


def ipam(**more: Any) -> NetworkSpec:
    return network(ipam=IPAMOptions(configs=[IPAMConfig(**more)]))


async def create_network(setup: Any, spec: NetworkSpec) -> Network:
    made: Network = (await setup.control.CreateNetwork(pb.CreateNetworkRequest(spec=spec), None)).network
    return made


@pytest.mark.parametrize(
    "spec",
    [
        network(),
        network(attachable=True),
        ipam(subnet="10.1.0.0/16", range="10.1.8.0/24", gateway="10.1.0.1"),
        ipam(subnet="10.1.2.3/16"),
        ipam(subnet="fd00::/64", gateway="fd00::1"),
    ],
)
async def test_networks(setup: Any, spec: NetworkSpec) -> None:
    made = await create_network(setup, spec)

    got = await setup.control.GetNetwork(pb.GetNetworkRequest(network_id=made.id), None)
    assert got.network == made
    assert made.spec == spec


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (network(ingress=True, attachable=True), "ingress network cannot be attachable"),
        (network(""), "annotations.name is empty"),
        (network("a.b"), "name must be valid as a DNS name component"),
        (network(driver_config=Driver(name="overlay")), "plugin 'overlay' not supported"),
        (network(driver_config=Driver()), "leave driver_config out"),
        (network(ipam=IPAMOptions(driver=Driver(name="default"))), "leave ipam.driver out"),
        (ipam(), "ipam.configs[0].subnet"),
        (ipam(subnet="10.1.0.0"), "invalid subnet '10.1.0.0'"),
        (ipam(subnet="10.1.0.0/33"), "invalid subnet"),
        (ipam(subnet="10.1.0.0/255.255.0.0"), "invalid subnet"),
        (ipam(subnet="fe80::%eth0/64"), "invalid subnet"),
        (ipam(subnet="10.1.0.0/16", range="10.2.0.0/24"), "ipam.configs[0].range"),
        (ipam(subnet="10.1.0.0/16", range="10.1.0.0"), "ipam.configs[0].range"),
        (ipam(subnet="10.1.0.0/16", gateway="10.2.0.1"), "ipam.configs[0].gateway"),
        (ipam(subnet="10.1.0.0/16", gateway="fd00::1"), "ipam.configs[0].gateway"),
        (ipam(subnet="x\n" * 500), "ipam.configs[0].subnet"),
    ],
)
async def test_what_is_no_network(setup: Any, spec: NetworkSpec, text: str) -> None:
    await setup.refused(create_network(setup, spec), InvalidArgumentError, text)


async def test_networks_that_exist_or_are_not_for_users(setup: Any) -> None:
    await create_network(setup, network())
    await create_network(setup, network("ingress", ingress=True))

    await setup.refused(create_network(setup, network("BACK")), AlreadyExistsError, "already exists")
    await setup.refused(create_network(setup, network("two", ingress=True)), AlreadyExistsError, "already present")
    labelled = network("three")
    labelled.annotations.labels[PREDEFINED] = ""
    await setup.refused(create_network(setup, labelled), PermissionDeniedError, PREDEFINED)
    call = setup.control.CreateNetwork(pb.CreateNetworkRequest(), None)
    await setup.refused(call, InvalidArgumentError, "spec is missing")


async def test_networks_in_use_stay(setup: Any) -> None:
    def service(name: str, **more: Any) -> Service:
        return Service(id=name, spec=ServiceSpec(annotations=Annotations(name=name), **more))

    user = service("user")
    user.spec.task.networks.append(NetworkAttachmentConfig(target="used"))
    publisher = service("publisher")
    publisher.spec.endpoint.ports.add(target_port=80)
    live = Task(id="live", desired_state=TaskState.RUNNING)
    live.status.state = TaskState.RUNNING
    live.networks.add().network.id = "busy"
    dead = Task(id="dead", desired_state=TaskState.SHUTDOWN)
    dead.networks.add().network.id = "free"
    predefined = Network(id="host", spec=network("host"))
    predefined.spec.annotations.labels[PREDEFINED] = "true"
    await setup.put(
        *(Network(id=id, spec=network(id)) for id in ("used", "busy", "free")),
        Network(id="ingress", spec=network("ingress", ingress=True)),
        predefined,
        user,
        publisher,
        live,
        dead,
    )

    async def remove(id: str) -> None:
        await setup.control.RemoveNetwork(pb.RemoveNetworkRequest(network_id=id), None)

    for id, text in (
        ("used", "network used is in use by service user"),
        ("busy", "network busy is in use by task live"),
        ("ingress", "ingress network cannot be removed because service publisher depends on it"),
        ("host", "network host is a pre-defined network and cannot be removed"),
    ):
        await setup.refused(remove(id), FailedPreconditionError, text)
    await setup.refused(remove(""), InvalidArgumentError, "network_id is empty")
    await setup.refused(remove("nothing"), NotFoundError, "network nothing not found")
    await remove("free")
    await setup.control.RemoveService(pb.RemoveServiceRequest(service_id="publisher"), None)
    await remove("ingress")

    request = pb.ListNetworksRequest(filters=pb.ListNetworksRequest.Filters(names=["used", "free"]))
    assert [left.id for left in (await setup.control.ListNetworks(request, None)).networks] == ["used"]


async def create_extension(setup: Any, name: str) -> str:
    request = pb.CreateExtensionRequest(annotations=Annotations(name=name), description="d")
    return str((await setup.control.CreateExtension(request, None)).extension.id)


async def create_resource(setup: Any, name: str, kind: str) -> str:
    request = pb.CreateResourceRequest(annotations=Annotations(name=name), kind=kind, payload=AnyMessage(value=b"x"))
    return str((await setup.control.CreateResource(request, None)).resource.id)


async def test_extensions(setup: Any) -> None:
    id = await create_extension(setup, "Backup")

    got = (await setup.control.GetExtension(pb.GetExtensionRequest(extension_id=id), None)).extension
    assert (got.annotations.name, got.description) == ("Backup", "d")
    await setup.refused(create_extension(setup, ""), InvalidArgumentError, "annotations.name")
    await setup.refused(create_extension(setup, "a\tb"), InvalidArgumentError, "annotations.name")
    await setup.refused(create_extension(setup, "backup"), AlreadyExistsError, "already exists")
    for builtin in ("service", "Node", "resource"):
        await setup.refused(create_extension(setup, builtin), AlreadyExistsError, "conflicts with a built-in kind")


async def test_an_extension_with_resources_stays(setup: Any) -> None:
    id = await create_extension(setup, "backup")
    resource_id = await create_resource(setup, "nightly", "backup")

    async def remove() -> None:
        await setup.control.RemoveExtension(pb.RemoveExtensionRequest(extension_id=id), None)

    await setup.refused(remove(), InvalidArgumentError, "extension backup is in use by resources: nightly")
    await setup.control.RemoveResource(pb.RemoveResourceRequest(resource_id=resource_id), None)
    await remove()
    await setup.refused(remove(), NotFoundError, "not found")


async def test_resources(setup: Any) -> None:
    await create_extension(setup, "backup")
    await create_extension(setup, "dns")
    id = await create_resource(setup, "nightly", "backup")
    await create_resource(setup, "zone", "dns")

    await setup.refused(create_resource(setup, "a", ""), InvalidArgumentError, "kind is empty")
    await setup.refused(create_resource(setup, "", "dns"), InvalidArgumentError, "annotations.name")
    await setup.refused(create_resource(setup, "a", "Backup"), InvalidArgumentError, "Kind Backup is not registered")
    await setup.refused(create_resource(setup, "Nightly", "dns"), AlreadyExistsError, "already exists")

    async def names(**filters: Any) -> list[str]:
        request = pb.ListResourcesRequest(filters=pb.ListResourcesRequest.Filters(**filters))
        return [found.annotations.name for found in (await setup.control.ListResources(request, None)).resources]

    assert await names() == ["nightly", "zone"]
    assert await names(kind="dns") == ["zone"]
    assert await names(kind="dns", names=["nightly"]) == []
    assert await names(names=["nightly"], name_prefixes=["zo"]) == ["nightly", "zone"]

    async def update(version: int, **more: Any) -> Any:
        request = pb.UpdateResourceRequest(resource_id=id, resource_version=Version(index=version), **more)
        return (await setup.control.UpdateResource(request, None)).resource

    await setup.refused(update(99), InvalidArgumentError, "update out of sequence")
    call = update(3, annotations=Annotations(name="other"))
    await setup.refused(call, InvalidArgumentError, "annotations.name must stay")
    changed = await update(3, payload=AnyMessage(value=b"y"))
    assert (changed.payload.value, changed.annotations.name) == (b"y", "nightly")
    changed = await update(5, annotations=Annotations(name="nightly", labels={"a": "b"}))
    assert (changed.payload.value, changed.annotations.labels["a"]) == (b"y", "b")


def volume(**more: Any) -> VolumeSpec:
    fields: dict[str, Any] = {
        "annotations": Annotations(name="data"),
        "driver": Driver(name="csi"),
        "access_mode": VolumeAccessMode(mount=VolumeAccessMode.MountVolume()),
    }
    return VolumeSpec(**(fields | more))


async def create_volume(setup: Any, spec: VolumeSpec) -> Volume:
    made: Volume = (await setup.control.CreateVolume(pb.CreateVolumeRequest(spec=spec), None)).volume
    return made


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (volume(driver=None), "driver must be specified"),
        (volume(annotations=Annotations()), "annotations.name must be provided"),
        (volume(annotations=Annotations(name="a\nb")), "annotations.name"),
        (volume(access_mode=None), "AccessMode must not be nil"),
        (volume(access_mode=VolumeAccessMode()), "must specify either Mount or Block"),
        (volume(capacity_range=CapacityRange(required_bytes=-1)), "capacity_range"),
        (volume(capacity_range=CapacityRange(required_bytes=2, limit_bytes=1)), "capacity_range.limit_bytes"),
        (volume(secrets=[VolumeSecret(secret="a"), VolumeSecret(secret="b")]), "secrets not found: a, b"),
    ],
)
async def test_what_is_no_volume(setup: Any, spec: VolumeSpec, text: str) -> None:
    await setup.refused(create_volume(setup, spec), InvalidArgumentError, text)


async def test_volumes(setup: Any) -> None:
    await setup.put(Secret(id="s1", spec=SecretSpec(annotations=Annotations(name="key"), data=b"x")))
    made = await create_volume(setup, volume(secrets=[VolumeSecret(key="k", secret="s1")], group="fast"))

    async def update(version: int, spec: VolumeSpec) -> Volume:
        request = pb.UpdateVolumeRequest(volume_id=made.id, volume_version=Version(index=version), spec=spec)
        changed: Volume = (await setup.control.UpdateVolume(request, None)).volume
        return changed

    block = VolumeAccessMode(block=VolumeAccessMode.BlockVolume())
    changes: list[tuple[str, Callable[[VolumeSpec], object]]] = [
        ("annotations.name", lambda spec: setattr(spec.annotations, "name", "other")),
        ("group", lambda spec: setattr(spec, "group", "slow")),
        ("driver", lambda spec: setattr(spec.driver, "name", "other")),
        ("access_mode", lambda spec: spec.access_mode.CopyFrom(block)),
        ("capacity_range", lambda spec: setattr(spec.capacity_range, "limit_bytes", 1)),
        ("secrets", lambda spec: spec.ClearField("secrets")),
    ]
    for field, change in changes:
        spec = VolumeSpec()
        spec.CopyFrom(made.spec)
        change(spec)
        await setup.refused(update(2, spec), InvalidArgumentError, f"cannot be updated: {field}")
    wanted = VolumeSpec()
    wanted.CopyFrom(made.spec)
    wanted.availability = VolumeSpec.DRAIN
    wanted.annotations.labels["a"] = "b"
    changed = await update(2, wanted)
    assert changed.spec == wanted
    await setup.refused(update(2, wanted), SequenceConflictError, "update out of sequence")

    for filters, count in (({"groups": ["fast"]}, 1), ({"groups": ["slow"]}, 0), ({"drivers": ["csi"]}, 1)):
        request = pb.ListVolumesRequest(filters=pb.ListVolumesRequest.Filters(**filters))  # type: ignore[arg-type]
        assert len((await setup.control.ListVolumes(request, None)).volumes) == count


async def test_removing_volumes(setup: Any) -> None:
    used = Volume(id="v1", spec=volume(), publish_status=[VolumePublishStatus(node_id="n")])
    await setup.put(used, Volume(id="v2", spec=volume(annotations=Annotations(name="other"))))

    async def remove(id: str, force: bool = False) -> None:
        await setup.control.RemoveVolume(pb.RemoveVolumeRequest(volume_id=id, force=force), None)

    await setup.refused(remove("v1"), FailedPreconditionError, "volume is still in use")
    await remove("v2")
    assert setup.store.view.volume.get("v2").pending_delete
    await remove("v1", force=True)
    assert "v1" not in setup.store.view.volume
    await setup.refused(remove("v1"), NotFoundError, "volume v1 not found")
    call = setup.control.GetVolume(pb.GetVolumeRequest(), None)
    await setup.refused(call, NotFoundError, "volume  not found")

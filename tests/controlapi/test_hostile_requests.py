"""Whatever is sent: an answer, or one line of refusal that has changed nothing and repeats no secret."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmcore.api.control_pb2 import DESCRIPTOR, CreateServiceRequest, UpdateServiceRequest
from swarmcore.api.objects_pb2 import (
    Cluster,
    Config,
    Extension,
    Network,
    Node,
    Resource,
    Secret,
    Service,
    Task,
    Volume,
)
from swarmcore.api.specs_pb2 import ServiceSpec
from swarmcore.api.watch_pb2 import WatchRequest
from swarmcore.controlapi.control import ControlService
from swarmcore.controlapi.watch import WatchService
from swarmcore.errors import SwarmError
from swarmcore.store.store import Store
from swarmcore.testing.store import running_store

METHODS = {method.name: method for method in DESCRIPTOR.services_by_name["Control"].methods}
ID = "seeded"
SECRETS = (b"s3cret-data", b"s3cret-ca-key", b"s3cret-unlock", b"s3cret-gossip", b"s3cret-signing", b"s3cret-policy")

_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            ID,
            "default",
            "web",
            "nginx:1",
            "container",
            "process",
            "node.role==manager",
            "10.0.0.0/8",
            "10.0.0.1",
            "{{.Node.ID}}",
            "{{",
            "a\0b",
            "a\nb",
            "\x1b[2J",
            "-",
            "A=b",
            "=",
            "x" * 70,
            "x" * 2_000,
            "é",
            "\u202e",
            "../..",
        ]
    ),
    st.text(max_size=20),
)
_TAME_TEXTS = st.sampled_from(
    [
        *(ID, "default", "web", "nginx:1", "container", "process", "node.role==manager", "10.0.0.0/8", "10.0.0.1"),
        *("{{.Node.ID}}", "{{", "-", "A=b", "=", "x" * 70, "é", "../..", "golang", "UP:CASE", "/data"),
    ]
)
_INTEGERS = (0, 1, 2, 3, 4, 5, 80, 255, 70_000, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_FLOATS = st.sampled_from([0.0, 0.5, -1.0, 2.0, float("nan"), float("inf")])


def _scalar(draw: st.DrawFn, field: Any, is_tame: bool) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw(_TAME_TEXTS if is_tame else _TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.sampled_from([b"", b"x", b"\xff\xfe\0", b"s3cret-data", b"x" * 3_000]))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.booleans())
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return draw(_FLOATS)
    least, most = _RANGES[field.cpp_type]
    known = [value for value in _INTEGERS if least <= value <= most] + ([-1, least] if least < 0 else [])
    if is_tame:
        known = [value for value in known if value < 2**63]
        if field.containing_type.full_name == "google.protobuf.Duration":
            known = [0, 1, 5, 3600] if field.name == "seconds" else [0, 1, 1_000_000]
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values] + ([] if is_tame else [-1, 77])
    return draw(st.sampled_from(known))


def _fill(draw: st.DrawFn, message: Message, is_tame: bool, depth: int = 0) -> None:
    for field in message.DESCRIPTOR.fields:
        if draw(st.integers(0, 9)) >= (2 if depth else 1) + depth:
            _fill_field(draw, message, field, is_tame, depth)


def _fill_field(draw: st.DrawFn, message: Message, field: Any, is_tame: bool, depth: int) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        values = getattr(message, field.name)
        value_field = entry.fields_by_name["value"]
        for _ in range(draw(st.integers(0, 2))):
            if value_field.message_type is None:
                values[draw(_TAME_TEXTS if is_tame else _TEXTS)] = _scalar(draw, value_field, is_tame)
    elif field.is_repeated:
        values = getattr(message, field.name)
        for _ in range(draw(st.integers(0, 2))):
            if entry is not None:
                _fill(draw, values.add(), is_tame, depth + 1)
            else:
                values.append(_scalar(draw, field, is_tame))
    elif entry is not None:
        part = getattr(message, field.name)
        part.SetInParent()
        if depth < 6:
            _fill(draw, part, is_tame, depth + 1)
    else:
        setattr(message, field.name, _scalar(draw, field, is_tame))


def _disturb(draw: st.DrawFn, message: Message, is_tame: bool) -> None:
    """Change one field, here or in a part of the message."""
    message.SetInParent()
    if not message.DESCRIPTOR.fields:
        return
    field: Any = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    entry = field.message_type
    if entry is None or entry.GetOptions().map_entry or not draw(st.booleans()):
        _fill_field(draw, message, field, is_tame, 2)
    elif field.is_repeated:
        _disturb(draw, getattr(message, field.name).add(), is_tame)
    else:
        _disturb(draw, getattr(message, field.name), is_tame)


@st.composite
def disturbed_specs(draw: st.DrawFn) -> ServiceSpec:
    """A valid spec that is wrong in one or two places, if at all."""
    spec = ServiceSpec()
    spec.annotations.name = "other"
    spec.task.container.image = "nginx"
    spec.replicated.replicas = 1
    for _ in range(draw(st.integers(1, 2))):
        _disturb(draw, spec, draw(st.booleans()))
    return spec


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """A message of any content, with a bias to what makes trouble. A tame one passes the bounds that hold for every
    request, so that the rules behind them are reached.
    """
    message: Message = GetMessageClass(descriptor)()
    _fill(draw, message, draw(st.integers(0, 3)) > 0)
    return message


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Message]:
    name = draw(st.sampled_from(sorted(METHODS)))
    return name, draw(messages(METHODS[name].input_type))


class _Ops:
    def rotate_join_token(self, cluster: Cluster, role: object) -> str:
        return "token"

    def new_unlock_key(self) -> bytes:
        return b"s3cret-unlock"

    async def plan_root_ca(self, cluster: Cluster, spec: object) -> Any:
        return cluster.root_ca

    def record_removed_node(self, tx: object, node: Node) -> None:
        return None


def seeds() -> Sequence[Message]:
    """One object in every table, all of the same id, with secrets in all places that have any."""
    cluster = Cluster(id=ID)
    cluster.spec.annotations.name = "default"
    cluster.spec.ca_config.signing_ca_key = b"s3cret-signing"
    cluster.spec.acceptance_policy.policies.add().secret.data = b"s3cret-policy"
    cluster.root_ca.ca_key = b"s3cret-ca-key"
    cluster.root_ca.root_rotation.ca_key = b"s3cret-ca-key"
    cluster.root_ca.join_tokens.worker = "shown"
    cluster.unlock_keys.add(subsystem="swarm-manager", key=b"s3cret-unlock")
    cluster.network_bootstrap_keys.add(key=b"s3cret-gossip")
    secret = Secret(id=ID)
    secret.spec.annotations.name = "web"
    secret.spec.data = b"s3cret-data"
    service = Service(id=ID)
    service.spec.annotations.name = "web"
    service.spec.task.container.image = "nginx"
    service.spec.replicated.replicas = 1
    service.previous_spec.CopyFrom(service.spec)
    config, network, volume = Config(id=ID), Network(id=ID), Volume(id=ID)
    for named in (config, network, volume):
        named.spec.annotations.name = "web"
    extension, resource = Extension(id=ID), Resource(id=ID, kind="web")
    for own in (extension, resource):
        own.annotations.name = "web"
    return [cluster, secret, service, config, network, volume, extension, resource, Node(id=ID), Task(id=ID)]


async def seeded(store: Store) -> ControlService:
    def write(tx: Any) -> None:
        for obj in seeds():
            tx.table(obj.DESCRIPTOR.name.lower()).create(obj)

    await store.update(write)
    return ControlService(store, members=lambda: [], cluster_ops=_Ops())


def check_refusal(error: SwarmError, sent: Message) -> None:
    said = str(error)
    assert said
    assert said.isprintable(), repr(said)
    assert len(said) <= 1_000
    assert "s3cret" not in said or type(sent).__name__.startswith(("Get", "Remove"))


async def call(name: str, request: Message) -> Message | None:
    """Make one call on a fresh, seeded store: the answer, or None when it was refused as it should be."""
    async with running_store() as store:
        control = await seeded(store)
        before = b"".join(store.snapshot())
        method: Callable[..., Awaitable[Message]] = getattr(control, name)
        try:
            answer = await method(request, None)
        except SwarmError as error:
            check_refusal(error, request)
            assert b"".join(store.snapshot()) == before
            return None
        for obj in [obj for table in ("service", "node", "secret") for obj in store.view.table(table).all()]:
            # What was let in can be read again: valid UTF-8, and no larger than a transaction.
            assert type(obj).FromString(obj.SerializeToString()) == obj
    return answer


QUICK = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(requests())
def test_any_call_is_answered_or_refused(pair: tuple[str, Message]) -> None:
    name, request = pair
    answer = asyncio.run(call(name, request))

    if answer is not None and not name.endswith(("Config", "Configs", "Resource", "Resources")):
        data = answer.SerializeToString()
        assert not [secret for secret in SECRETS if secret in data and secret not in request.SerializeToString()]


@QUICK
@given(messages(ServiceSpec.DESCRIPTOR), st.booleans())
def test_any_spec_of_a_service_is_taken_or_refused(spec: ServiceSpec, is_new: bool) -> None:
    if is_new:
        request: Message = CreateServiceRequest(spec=spec)
    else:
        request = UpdateServiceRequest(service_id=ID, service_version={"index": 1}, spec=spec)  # type: ignore[arg-type]

    asyncio.run(call("CreateService" if is_new else "UpdateService", request))


@QUICK
@given(disturbed_specs())
def test_a_spec_that_is_wrong_in_one_place_is_taken_or_refused(spec: ServiceSpec) -> None:
    asyncio.run(call("CreateService", CreateServiceRequest(spec=spec)))


@QUICK
@given(st.binary(max_size=400))
def test_bytes_that_parse_are_taken_or_refused(data: bytes) -> None:
    try:
        spec = ServiceSpec.FromString(data)
    except DecodeError:
        return

    asyncio.run(call("CreateService", CreateServiceRequest(spec=spec)))


@QUICK
@given(messages(WatchRequest.DESCRIPTOR))
def test_any_watch_begins_or_is_refused(request: WatchRequest) -> None:
    async def begin() -> None:
        async with running_store() as store:
            await seeded(store)
            stream = WatchService(store).Watch(request, None)
            try:
                await anext(stream)
            except SwarmError as error:
                check_refusal(error, request)
            finally:
                await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(begin())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_empty_request_is_answered_or_refused(name: str) -> None:
    asyncio.run(call(name, GetMessageClass(METHODS[name].input_type)()))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_call_of_the_service_is_there(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(ControlService, name))


def test_nothing_secret_is_in_any_answer_to_reading() -> None:
    """Every Get and List, for every kind of object, on a store that has secrets in all places that have any."""

    async def read() -> None:
        async with running_store() as store:
            control = await seeded(store)
            read = 0
            for name, method in METHODS.items():
                request = GetMessageClass(method.input_type)()
                if name.startswith("Get"):
                    setattr(request, f"{name.removeprefix('Get').lower()}_id", ID)
                elif not name.startswith("List"):
                    continue
                answer = await getattr(control, name)(request, None)
                data = answer.SerializeToString()
                assert not [secret for secret in SECRETS if secret in data], name
                read += 1
            assert read >= 20
            cluster = store.view.cluster.get(ID)
            assert cluster is not None
            assert cluster.root_ca.ca_key == b"s3cret-ca-key"

    asyncio.run(read())

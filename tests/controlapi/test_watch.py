"""Watching: what is sent, in what order, and how a stream ends."""

# ruff: noqa: S106 - ids of secrets are not secret
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Cluster, Config, Node, Resource, Secret, Service, Task
from swarmcore.api.specs_pb2 import ConfigSpec, NodeSpec, SecretSpec, ServiceSpec
from swarmcore.api.types_pb2 import Annotations, IndexEntry, NodeRole, TaskState, Version
from swarmcore.api.watch_pb2 import (
    SelectBy,
    SelectByCustom,
    SelectBySlot,
    WatchActionKind,
    WatchMessage,
    WatchRequest,
)
from swarmcore.api.watch_pb2_grpc import WatchStub, add_WatchServicer_to_server
from swarmcore.controlapi.watch import LEADERLESS_SECONDS, WatchService
from swarmcore.errors import AbortedError, InvalidArgumentError, OutOfRangeError, SwarmError, UnavailableError
from swarmcore.store.transaction import Transaction
from swarmcore.testing.clock import SimulatedClock, let_the_loop_run

Entry = WatchRequest.WatchEntry
CREATE, UPDATE, REMOVE = 1, 2, 4


def entry(kind: str, action: int = CREATE | UPDATE | REMOVE, *filters: SelectBy) -> WatchRequest.WatchEntry:
    return Entry(kind=kind, action=WatchActionKind.ValueType(action), filters=filters)


def service(id: str, replicas: int = 1) -> Service:
    made = Service(id=id, spec=ServiceSpec(annotations=Annotations(name=id)))
    made.spec.replicated.replicas = replicas
    return made


def _kind(event: WatchMessage.Event) -> str:
    return str(event.object.WhichOneof("Object"))


class Stream:
    """A watch that is open: `next` gives what comes."""

    def __init__(self, messages: AsyncIterator[WatchMessage]) -> None:
        self._messages = messages

    async def next(self) -> list[tuple[int, str]]:
        message = await asyncio.wait_for(anext(self._messages), 5)
        self.last = message
        return [
            (event.action, getattr(event.object, str(event.object.WhichOneof("Object"))).id) for event in message.events
        ]

    async def close(self) -> None:
        await self._messages.aclose()  # type: ignore[attr-defined]


async def watch(setup: Any, *entries: WatchRequest.WatchEntry, **more: Any) -> Stream:
    stream = Stream(WatchService(setup.store).Watch(WatchRequest(entries=entries, **more), None))
    assert await stream.next() == []
    assert not stream.last.HasField("version")
    return stream


async def test_events_come_by_transaction_with_its_version(setup: Any) -> None:
    stream = await watch(setup, entry("service"), entry("node"))

    await setup.put(service("a"), service("b"), Node(id="n"), Task(id="t"))
    assert await stream.next() == [(CREATE, "a"), (CREATE, "b"), (CREATE, "n")]
    assert stream.last.version.index == 1
    await setup.put(Task(id="t2"))
    await setup.control.RemoveService(pb.RemoveServiceRequest(service_id="a"), None)
    assert await stream.next() == [(REMOVE, "a")]
    assert stream.last.version.index == 3
    await stream.close()


async def scale(setup: Any, id: str, replicas: int) -> None:
    def write(tx: Transaction) -> None:
        changed = Service()
        old = tx.service.get(id)
        assert old is not None
        changed.CopyFrom(old)
        changed.spec.replicated.replicas = replicas
        tx.service.update(changed)

    await setup.store.update(write)


async def test_the_old_object_comes_when_asked_for(setup: Any) -> None:
    await setup.put(service("a"))
    without = await watch(setup, entry("service"))
    with_old = await watch(setup, entry("service"), include_old_object=True)

    await scale(setup, "a", 5)

    assert await without.next() == await with_old.next() == [(UPDATE, "a")]
    assert not without.last.events[0].HasField("old_object")
    assert with_old.last.events[0].old_object.service.spec.replicated.replicas == 1
    assert with_old.last.events[0].object.service.spec.replicated.replicas == 5
    await without.close()
    await with_old.close()


@pytest.mark.parametrize(
    ("action", "seen"),
    [
        (CREATE, [CREATE]),
        (UPDATE, [UPDATE]),
        (REMOVE, [REMOVE]),
        (CREATE | REMOVE, [CREATE, REMOVE]),
        (CREATE | UPDATE | REMOVE, [CREATE, UPDATE, REMOVE]),
    ],
)
async def test_actions_are_bits(setup: Any, action: int, seen: list[int]) -> None:
    stream = await watch(setup, entry("service", action))

    await setup.put(service("a"))
    await scale(setup, "a", 2)
    await setup.control.RemoveService(pb.RemoveServiceRequest(service_id="a"), None)

    assert [await stream.next() for _ in seen] == [[(one, "a")] for one in seen]
    await stream.close()


def task(id: str, **more: Any) -> Task:
    return Task(id=id, service_annotations=Annotations(name="web"), **more)


@pytest.mark.parametrize(
    ("kind", "filters", "seen"),
    [
        ("task", [SelectBy(id="t1")], ["t1"]),
        ("task", [SelectBy(id_prefix="t")], ["t1", "t2"]),
        ("task", [SelectBy(name="web.1.t1")], ["t1"]),
        ("task", [SelectBy(name_prefix="web.2")], ["t2"]),
        ("task", [SelectBy(service_id="s1")], ["t1", "t2"]),
        ("task", [SelectBy(service_id="s1"), SelectBy(node_id="n2")], ["t2"]),
        ("task", [SelectBy(slot=SelectBySlot(service_id="s1", slot=2))], ["t2"]),
        ("task", [SelectBy(desired_state=TaskState.RUNNING)], ["t1"]),
        ("task", [SelectBy(desired_state=TaskState.NEW)], ["t2"]),
        ("node", [SelectBy(role=NodeRole.MANAGER)], ["n1"]),
        ("node", [SelectBy(role=NodeRole.WORKER)], ["n2"]),
        ("node", [SelectBy(membership=NodeSpec.ACCEPTED)], ["n2"]),
        ("node", [SelectBy(name="host1")], ["n1"]),
        ("config", [SelectBy(custom=SelectByCustom(index="team", value="blue"))], ["c1"]),
        ("config", [SelectBy(custom=SelectByCustom(index="team", value="bl"))], []),
        ("config", [SelectBy(custom_prefix=SelectByCustom(index="team", value="bl"))], ["c1"]),
        ("backup", [], ["r1"]),
        ("backup", [SelectBy(name="nightly")], ["r1"]),
        ("dns", [SelectBy(kind="dns")], ["r2"]),
        ("dns", [SelectBy(custom=SelectByCustom(kind="dns", index="team", value="red"))], ["r2"]),
    ],
)
async def test_filters(setup: Any, kind: str, filters: list[SelectBy], seen: list[str]) -> None:
    nodes = [
        Node(id="n1", role=NodeRole.MANAGER),
        Node(id="n2", spec=NodeSpec(membership=NodeSpec.ACCEPTED)),
    ]
    nodes[0].description.hostname = "host1"
    labelled = Annotations(name="conf", indices=[IndexEntry(key="team", val="blue")])
    objects = [
        task("t1", service_id="s1", slot=1, node_id="n1", desired_state=TaskState.RUNNING),
        task("t2", service_id="s1", slot=2, node_id="n2"),
        *nodes,
        Config(id="c1", spec=ConfigSpec(annotations=labelled)),
        Resource(id="r1", kind="backup", annotations=Annotations(name="nightly")),
        Resource(
            id="r2", kind="dns", annotations=Annotations(name="zone", indices=[IndexEntry(key="team", val="red")])
        ),
    ]
    # The secret tells that what came before has been sent.
    stream = await watch(setup, entry(kind, CREATE, *filters), entry("secret"))

    await setup.put(*objects, Secret(id="end", spec=SecretSpec(annotations=Annotations(name="end"))))

    assert await stream.next() == [(CREATE, id) for id in (*seen, "end")]
    await stream.close()


async def test_an_event_that_two_entries_ask_for_comes_once(setup: Any) -> None:
    stream = await watch(setup, entry("service"), entry("service", CREATE, SelectBy(id="a")))

    await setup.put(service("a"))

    assert await stream.next() == [(CREATE, "a")]
    await stream.close()


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([], "entries is empty"),
        ([entry("")], "no kind of object specified: entries[0].kind"),
        ([entry("node"), entry("node", 0)], "no action specified: entries[1].action"),
        ([entry("node", 8)], "entries[0].action"),
        ([entry("node", 15)], "entries[0].action"),
        ([entry("node", 7, SelectBy(id="a"), SelectBy(id="b"))], "conflicting filters specified"),
        ([entry("node", 7, SelectBy())], "entries[0].filters[0] is empty"),
        ([entry("node", 7, SelectBy(service_id="a"))], "unrecognized selector: entries[0].filters[0] service_id"),
        ([entry("service", 7, SelectBy(role=NodeRole.MANAGER))], "unrecognized selector"),
        ([entry("task", 7, SelectBy(referenced_secret_id="a"))], "unrecognized selector"),
        ([entry("node", 7, SelectBy(custom=SelectByCustom(kind="task")))], "unrecognized selector"),
        ([entry("node")] * 101, "entries has more than 100"),
        ([entry("node\0")], "entries[0].kind has a NUL byte"),
    ],
)
async def test_what_can_not_be_watched(setup: Any, entries: list[WatchRequest.WatchEntry], text: str) -> None:
    service = WatchService(setup.store)

    with pytest.raises(InvalidArgumentError) as caught:
        await anext(service.Watch(WatchRequest(entries=entries), None))

    assert text in str(caught.value)
    assert service.watches == 0


async def test_secrets_and_keys_are_not_in_events(setup: Any) -> None:
    stream = await watch(setup, entry("secret"), entry("cluster"), include_old_object=True)
    cluster = Cluster(id="c")
    cluster.root_ca.ca_key = b"KEY"

    await setup.put(Secret(id="s", spec=SecretSpec(annotations=Annotations(name="key"), data=b"hunter2")), cluster)
    assert await stream.next() == [(CREATE, "s"), (CREATE, "c")]
    created = stream.last.SerializeToString()
    await setup.control.UpdateSecret(
        pb.UpdateSecretRequest(
            secret_id="s",
            secret_version=Version(index=1),
            spec=SecretSpec(annotations=Annotations(name="key", labels={"a": "b"})),
        ),
        None,
    )
    assert await stream.next() == [(UPDATE, "s")]
    updated = stream.last.SerializeToString()
    await stream.close()

    for sent in (created, updated):
        assert b"hunter2" not in sent
        assert b"KEY" not in sent


async def test_logins_to_registries_are_not_in_events(setup: Any) -> None:
    stream = await watch(setup, entry("service"), entry("task"), include_old_object=True)
    new, old = service("a"), Task(id="t")
    for spec in (new.spec.task, new.previous_spec.task, old.spec):
        spec.container.pull_options.registry_auth = "hunter2"

    await setup.put(new, old)
    assert await stream.next() == [(CREATE, "a"), (CREATE, "t")]
    created = stream.last.SerializeToString()
    changed = Task(id="t", spec=old.spec, meta=setup.store.view.task.get("t").meta, slot=7)
    await setup.store.update(lambda tx: tx.task.update(changed))
    assert await stream.next() == [(UPDATE, "t")]
    updated = stream.last.SerializeToString()
    await stream.close()

    assert b"hunter2" not in created + updated
    assert created.count(b"(hidden)") == 3 and updated.count(b"(hidden)") == 2


async def test_going_on_from_the_present(setup: Any) -> None:
    await setup.put(service("a"))
    stream = await watch(setup, entry("service"), resume_from=Version(index=1))

    await setup.put(service("b"))

    assert await stream.next() == [(CREATE, "b")]
    await stream.close()


@pytest.mark.parametrize(
    ("version", "text"), [(1, "resume version is compacted"), (3, "resume version is out of range")]
)
async def test_going_on_from_elsewhere_is_refused(setup: Any, version: int, text: str) -> None:
    await setup.put(service("a"))
    await setup.put(service("b"))

    with pytest.raises(OutOfRangeError, match=text):
        await watch(setup, entry("service"), resume_from=Version(index=version))


async def test_who_falls_behind_starts_again(setup: Any) -> None:
    messages = WatchService(setup.store, waiting_changes=3).Watch(WatchRequest(entries=[entry("service")]), None)
    stream = Stream(messages)
    await stream.next()

    for name in "abcde":
        await setup.put(service(name))

    with pytest.raises(AbortedError, match="events were lost"):
        await stream.next()


async def test_a_manager_without_a_leader_ends_its_streams_and_takes_none_until_there_is_one(setup: Any) -> None:
    clock, alone = SimulatedClock(), 0.0
    watches = WatchService(setup.store)
    running = asyncio.create_task(watches.run(lambda: alone, clock))
    request = WatchRequest(entries=[entry("service")])
    stream = Stream(watches.Watch(request, None))
    await stream.next()
    try:
        alone = LEADERLESS_SECONDS - 0.1
        await clock.advance(1)
        await setup.put(service("a"))
        assert await stream.next() == [(CREATE, "a")]

        alone = LEADERLESS_SECONDS
        await clock.advance(1)
        with pytest.raises(UnavailableError, match="has no leader"):
            await stream.next()
        with pytest.raises(UnavailableError, match="has no leader"):
            await Stream(watches.Watch(request, None)).next()
        assert watches.watches == 0

        alone = 0.0
        await clock.advance(1)
        again = Stream(watches.Watch(request, None))
        await again.next()
        await again.close()
    finally:
        running.cancel()


async def test_a_restored_snapshot_ends_the_stream(setup: Any) -> None:
    stream = await watch(setup, entry("service"))

    setup.store.restore(7, list(setup.store.snapshot()))

    with pytest.raises(AbortedError, match="read the objects again"):
        await stream.next()


async def test_a_large_transaction_comes_in_parts_that_fit(setup: Any) -> None:
    for part in "abcd":
        await setup.put(*(Task(id=f"{part}{n}", service_id="x" * 12_000) for n in range(100)))
    stream = await watch(setup, entry("task", REMOVE))

    def write(tx: Transaction) -> None:
        for old in list(tx.task.all()):
            tx.task.delete(old.id)

    await setup.store.update(write)
    first = await stream.next()
    assert not stream.last.HasField("version")
    assert stream.last.ByteSize() < 4 * 1024 * 1024
    rest = await stream.next()

    assert stream.last.version.index == 5
    assert len(first) + len(rest) == 400
    await stream.close()


async def test_a_client_that_goes_away_leaves_nothing_behind(setup: Any) -> None:
    service = WatchService(setup.store)
    server = grpc.aio.server()
    add_WatchServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = WatchStub(channel).Watch(WatchRequest(entries=[entry("service")]))
        assert await call.read() == WatchMessage()
        assert service.watches == 1
        await setup.put(Service(id="a"))
        message = await call.read()
        assert isinstance(message, WatchMessage)
        assert len(message.events) == 1
        call.cancel()
    # Waits for the handlers of calls that were cut short.
    await server.stop(5)
    await let_the_loop_run()

    assert service.watches == 0


def test_errors_of_a_watch_are_of_the_tree() -> None:
    assert issubclass(OutOfRangeError, SwarmError)
    assert OutOfRangeError.status == grpc.StatusCode.OUT_OF_RANGE.value[0]

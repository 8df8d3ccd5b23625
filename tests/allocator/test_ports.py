"""Published ports: unique, kept, and given back whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.allocator.ports import FIRST_DYNAMIC, LAST_DYNAMIC, PortConflict, PortSpace
from swarmcore.api.objects_pb2 import Service
from swarmcore.api.types_pb2 import PortConfig
from swarmcore.store.allocation import is_allocated

TCP, UDP = PortConfig.TCP, PortConfig.UDP


def service(id: str, *ports: PortConfig) -> Service:
    made = Service(id=id)
    made.spec.endpoint.SetInParent()
    made.spec.endpoint.ports.extend(ports)
    return made


def port(target: int, published: int = 0, protocol: PortConfig.Protocol.ValueType = TCP, **more: str) -> PortConfig:
    return PortConfig(target_port=target, published_port=published, protocol=protocol, name=more.get("name", ""))


def host(target: int, published: int = 0) -> PortConfig:
    return PortConfig(target_port=target, published_port=published, publish_mode=PortConfig.HOST)


def allocate(space: PortSpace, made: Service) -> list[int]:
    made.endpoint.CopyFrom(space.allocate(made))
    assert is_allocated(made)
    return [each.published_port for each in made.endpoint.ports]


def test_ports_that_are_not_named_come_one_after_another() -> None:
    space = PortSpace()

    assert allocate(space, service("a", port(80), port(443))) == [30_000, 30_001]
    assert allocate(space, service("b", port(80))) == [30_002]


def test_each_protocol_has_a_space_of_its_own() -> None:
    space = PortSpace()

    assert allocate(space, service("a", port(53, 53), port(53, 53, UDP))) == [53, 53]
    assert allocate(space, service("b", port(80), port(80, 0, UDP))) == [30_000, 30_000]


def test_a_port_in_use_is_refused_with_its_holder_and_nothing_is_kept() -> None:
    space = PortSpace()
    allocate(space, service("a", port(80, 8080)))

    with pytest.raises(PortConflict, match="port 8080/tcp is already in use by service a"):
        allocate(space, service("b", port(1, 9000), port(2, 8080)))

    assert allocate(space, service("c", port(1, 9000))) == [9000]


def test_a_failed_change_keeps_the_ports_from_before() -> None:
    space = PortSpace()
    allocate(space, service("a", port(80, 8080)))
    other = service("b", port(80, 9000))
    allocate(space, other)
    other.spec.endpoint.ports[0].published_port = 8080

    with pytest.raises(PortConflict):
        space.allocate(other)

    assert space.holder((TCP, 9000)) == "b"


def test_a_given_port_stays_when_other_ports_change() -> None:
    space = PortSpace()
    made = service("a", port(80, name="http"))
    allocate(space, made)
    allocate(space, service("b", port(80)))
    made.spec.endpoint.ports.insert(0, port(443, name="https"))

    assert allocate(space, made) == [30_002, 30_000]


def test_a_named_port_of_the_dynamic_range_is_not_given_to_another() -> None:
    space = PortSpace()

    assert allocate(space, service("a", port(1, 30_000))) == [30_000]
    assert allocate(space, service("b", port(1))) == [30_001]


def test_an_explicit_port_comes_before_one_to_be_chosen() -> None:
    assert allocate(PortSpace(), service("a", port(1), port(2, 30_000))) == [30_001, 30_000]


def test_a_freed_port_is_not_given_out_again_at_once() -> None:
    space = PortSpace()
    allocate(space, service("a", port(80)))

    assert space.release("a")
    assert allocate(space, service("b", port(80))) == [30_001]


def test_when_all_are_taken_it_says_so() -> None:
    space = PortSpace()
    for number in range(LAST_DYNAMIC - FIRST_DYNAMIC + 1):
        allocate(space, service(f"s{number}", port(80)))

    with pytest.raises(PortConflict, match="no port from 30000 to 32767 is free"):
        space.allocate(service("one more", port(80)))


def test_host_ports_are_copied_as_they_are() -> None:
    space = PortSpace()

    assert allocate(space, service("a", host(80, 8080), host(81))) == [8080, 0]
    assert allocate(space, service("b", host(80, 8080))) == [8080]


def test_a_space_restored_from_services_gives_out_nothing_twice() -> None:
    first = service("a", port(80), port(81, 8080))
    allocate(PortSpace(), first)
    space = PortSpace()

    assert space.restore(first)
    assert allocate(space, service("b", port(80))) == [30_001]
    with pytest.raises(PortConflict):
        space.allocate(service("c", port(80, 8080)))


def test_two_services_with_one_port_are_found_out() -> None:
    first, second = service("a", port(80)), service("b", port(80))
    allocate(PortSpace(), first)
    allocate(PortSpace(), second)
    space = PortSpace()

    assert space.restore(first)
    assert not space.restore(second)
    assert allocate(space, second) == [30_001]


requests = st.lists(
    st.tuples(st.sampled_from("abcd"), st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0, 0, 80, 30_001])))),
    max_size=20,
)


@given(requests)
def test_no_port_is_ever_held_by_two(steps: list[tuple[str, list[tuple[int, int]]]]) -> None:
    space = PortSpace()
    services: dict[str, Service] = {}
    for id, asked in steps:
        made = service(id, *(port(target, published) for target, published in asked))
        if id in services:
            made.endpoint.CopyFrom(services[id].endpoint)
        try:
            made.endpoint.CopyFrom(space.allocate(made))
        except PortConflict:
            continue
        services[id] = made

    held = [each.published_port for made in services.values() for each in made.endpoint.ports]
    assert len(held) == len(set(held))
    assert 0 not in held

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api.types_pb2 import DiscreteGenericResource, GenericResource, NamedGenericResource
from swarmcore.cli import values
from swarmcore.cli.external_ca import parse_external_ca


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("20s", 20 * 10**9),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1h30m", 5400 * 10**9),
        ("500ms", 500_000_000),
        ("2160h", 2160 * 3600 * 10**9),
        ("3us", 3000),
        ("3µs", 3000),
        ("-1s", -(10**9)),
        (" 7ns ", 7),
    ],
)
def test_durations_are_read_in_the_units_of_go(text: str, nanoseconds: int) -> None:
    assert values.duration_nanoseconds(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("2GiB", 2 << 30),
        ("1.5k", 1536),
        ("1 MB", 1 << 20),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert values.memory_bytes(text) == size


@pytest.mark.parametrize(("text", "nanos"), [("0.5", 500_000_000), ("2", 2 * 10**9), ("0.000000001", 1)])
def test_cpus_go_to_nine_decimals(text: str, nanos: int) -> None:
    assert values.nano_cpus(text) == nanos


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.1.1:4242", ("10.1.1.1", 4242)),
        (":4242", ("", 4242)),
        ("[fd00::1]:1", ("fd00::1", 1)),
        ("h:65535", ("h", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert values.host_and_port(text) == address


def test_generic_resources_are_counts_or_names() -> None:
    assert values.generic_resources("fpga=2, gpu=UUID1,gpu=UUID2,gpu=UUID1") == (
        GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="fpga", value=2)),
        GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value="UUID1")),
        GenericResource(named_resource_spec=NamedGenericResource(kind="gpu", value="UUID2")),
    )


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (values.duration_nanoseconds, ""),
        (values.duration_nanoseconds, "20"),
        (values.duration_nanoseconds, "s"),
        (values.duration_nanoseconds, "1s x"),
        (values.duration_nanoseconds, "--1s"),
        (values.duration_nanoseconds, "9" * 30 + "h"),
        (values.memory_bytes, ""),
        (values.memory_bytes, "-1"),
        (values.memory_bytes, "lots"),
        (values.memory_bytes, "9" * 30),
        (values.nano_cpus, "nan"),
        (values.nano_cpus, "inf"),
        (values.nano_cpus, "-1"),
        (values.nano_cpus, "0.0000000001"),
        (values.nano_cpus, "1e9"),
        (values.host_and_port, "host"),
        (values.host_and_port, "host:0"),
        (values.host_and_port, "host:65536"),
        (values.host_and_port, "host:\u0661"),
        (values.host_and_port, "fd00::1:80"),
        (values.host_and_port, "a b:80"),
        (values.key_value, "=x"),
        (values.generic_resources, ""),
        (values.generic_resources, "gpu"),
        (values.generic_resources, "gpu=-1"),
        (values.generic_resources, "gpu=1,gpu=UUID"),
        (values.generic_resources, "gpu=" + "9" * 30),
        (values.discrete_resources, "gpu=UUID"),
        (parse_external_ca, ""),
        (parse_external_ca, "url=https://x"),
        (parse_external_ca, "protocol=cfssl"),
        (parse_external_ca, "protocol=cfssl,url=http://x"),
        (parse_external_ca, "protocol=other,url=https://x"),
        (parse_external_ca, "protocol=cfssl,url=https://x,nonsense"),
        (parse_external_ca, "protocol=cfssl,url=https://x,cacert=/nonexistent"),
    ],
)
def test_what_can_not_be_meant_is_refused_in_one_line(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse(text)


@given(st.text())
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for parse in (values.duration_nanoseconds, values.memory_bytes, values.nano_cpus, values.host_and_port):
        try:
            parse(text)
        except ValueError:
            pass
    for parse_more in (values.generic_resources, values.key_value, parse_external_ca):
        try:
            parse_more(text)
        except ValueError:
            pass


def test_an_external_ca_carries_its_certificate_and_options(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"PEM")

    ca = parse_external_ca(f"protocol=CFSSL,url=https://ca:8888/sign,cacert={file},profile=node")

    assert (ca.url, ca.ca_cert, dict(ca.options)) == ("https://ca:8888/sign", b"PEM", {"profile": "node"})

"""What people type, read into values: durations, sizes, CPU counts, addresses, generic resources, `k=v` pairs.

Pure. Every refusal is a ValueError whose text completes the sentence "invalid value for --flag: …".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from swarmcore.api.types_pb2 import DiscreteGenericResource, GenericResource, NamedGenericResource

_DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MAX_INT64 = 2**63 - 1


def duration_nanoseconds(text: str) -> int:
    """Read `1h30m`, `20s`, `1.5s`, `500ms`, `0`: the units of SwarmKit's own flags."""
    body = text.strip()
    sign = -1 if body.startswith("-") else 1
    body = body[1:] if body[:1] in ("+", "-") else body
    if body == "0":
        return 0
    total, end = Decimal(0), 0
    for part in _DURATION_PART.finditer(body):
        if part.start() != end:
            break
        total += Decimal(part.group(1)) * _DURATION_UNITS[part.group(2)]
        end = part.end()
    if not body or end != len(body):
        raise ValueError(f"{text!r} is not a duration (write it like 20s, 1m30s, 500ms)")
    if total > _MAX_INT64:
        raise ValueError(f"{text!r} is longer than 292 years")
    return sign * int(total)


def memory_bytes(text: str) -> int:
    """Read `512m`, `1g`, `2GiB`, `1048576`; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size (write it like 512m or 2g)")
    size = int(Decimal(match.group(1)) * 1024 ** _SIZE_POWERS[match.group(2).lower()])
    if size > _MAX_INT64:
        raise ValueError(f"{text!r} is too large")
    return size


def nano_cpus(text: str) -> int:
    """Read `1.5` as CPUs, to nine decimals."""
    try:
        cpus = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number of CPUs (write it like 0.5 or 2)") from None
    if not cpus.is_finite() or cpus < 0 or cpus > 1_000_000:
        raise ValueError(f"{text!r} is not a number of CPUs between 0 and 1000000")
    nanos = cpus * 1_000_000_000
    if nanos != nanos.to_integral_value():
        raise ValueError(f"{text!r} is too precise: at most nine decimals")
    return int(nanos)


def host_and_port(text: str, *, port_zero: bool = False) -> tuple[str, int]:
    """Read `host:port` or `[v6]:port`; the host may be empty."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port (write it like 10.1.1.1:4242)")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is ambiguous: put an IPv6 address in brackets, like [fd00::1]:4242")
    if not (port.isascii() and port.isdigit()) or not (0 if port_zero else 1) <= int(port[:6]) <= 65535:
        raise ValueError(f"{text!r} has no valid port (1 to 65535)")
    if any(char.isspace() or ord(char) < 32 for char in host):
        raise ValueError(f"{text!r} has blanks in its host")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{text!r} has a host that is no name") from None
    return host, int(port)


def key_value(text: str) -> tuple[str, str]:
    """Read `key=value`; a missing `=` gives an empty value."""
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"{text!r} has no key (write it like key=value)")
    return key, value


def key_values(texts: Iterable[str]) -> dict[str, str]:
    """Read several `key=value`; the last one of a key wins."""
    return dict(key_value(text) for text in texts)


def generic_resources(text: str) -> tuple[GenericResource, ...]:
    """Read `fpga=2,gpu=UUID1,gpu=UUID2`: one whole number is a count, other values name single things."""
    values: dict[str, list[str]] = {}
    for part in text.split(","):
        kind, equals, value = (piece.strip() for piece in part.partition("="))
        if not (kind and equals and value):
            raise ValueError(f"{part!r} is not a generic resource (write it like gpu=UUID1,gpu=UUID2,fpga=2)")
        values.setdefault(kind, []).append(value)
    resources: list[GenericResource] = []
    for kind, items in values.items():
        numbers = [item for item in items if re.fullmatch(r"[+-]?\d+", item, re.ASCII)]
        if not numbers:
            resources += (
                GenericResource(named_resource_spec=NamedGenericResource(kind=kind, value=item))
                for item in dict.fromkeys(items)
            )
        elif len(items) > 1:
            raise ValueError(f"{kind!r} has a count and other values; give one count, or only names")
        elif not 0 <= int(numbers[0]) <= _MAX_INT64:
            raise ValueError(f"{kind!r} has the count {numbers[0]}, which is not between 0 and {_MAX_INT64}")
        else:
            count = DiscreteGenericResource(kind=kind, value=int(numbers[0]))
            resources.append(GenericResource(discrete_resource_spec=count))
    return tuple(resources)


def discrete_resources(text: str) -> tuple[GenericResource, ...]:
    """As `generic_resources`, for a request: counts only."""
    resources = generic_resources(text)
    for resource in resources:
        if not resource.HasField("discrete_resource_spec"):
            raise ValueError(f"{resource.named_resource_spec.kind!r} needs a count: a service asks for an amount")
    return resources

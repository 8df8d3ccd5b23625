"""Which address of this machine other nodes can be told, where the operator names none."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

_SIOCGIFADDR = 0x8915
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_OF_ENGINES = ("docker", "br-", "veth", "cni", "podman", "virbr")
"""Bridges of container engines: no other machine reaches them."""


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Whether listening on `host` means every address."""
    if not host:
        return True
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def candidates() -> list[tuple[str, str]]:
    """(interface, IPv4 address) of every interface that is up and leads somewhere, in the kernel's order."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFFLAGS, request)
                flags = struct.unpack("H", answer[16:18])[0]
                if not flags & _IFF_UP or flags & _IFF_LOOPBACK or name.startswith(_OF_ENGINES):
                    continue
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # Gone by now, or without an IPv4 address.
            found.append((name, socket.inet_ntoa(answer[20:24])))
    return found


def advertised(listen: str, advertise: str) -> str:
    """The `host:port` that other nodes are told: as given, as listened on, or this machine's first address."""
    if advertise:
        return advertise
    host, port = split(listen)
    if not is_wildcard(host):
        return listen
    addresses = candidates()
    return join(addresses[0][1] if addresses else "127.0.0.1", port)


def described(address: str, advertise: str) -> str:
    """The address that other nodes are told, and what to do about one that nobody chose."""
    if is_loopback(split(address)[0]):
        return f"{address}, which only this machine reaches; --advertise-remote-api names another address"
    return address if advertise else f"{address}; --advertise-remote-api names another address"

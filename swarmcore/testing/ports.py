"""Ports of this machine, or of a network namespace, for what tests start."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import threading
from typing import Final

CLONE_NEWNET: Final = 0x40000000


def free_port(namespace: str = "") -> int:
    """A port that nobody has for TCP and UDP, on any address. Far from those that the kernel gives away by itself, so
    that it is likely to stay free."""
    for port in random.sample(range(20_000, 32_000), 100):
        try:
            with listen(namespace, port, "0.0.0.0"), listen(namespace, port, "0.0.0.0", kind=socket.SOCK_DGRAM):  # noqa: S104
                return port
        except OSError:
            continue
    raise RuntimeError("no port is free")


def listen(
    namespace: str = "", port: int = 0, address: str = "127.0.0.1", *, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """A socket that listens in a network namespace, whichever thread uses it later."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            if namespace:
                _enter(namespace)
            there = socket.socket(socket.AF_INET, kind)
            made.append(there)
            if kind == socket.SOCK_STREAM:
                there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            there.bind((address, port))
            if kind == socket.SOCK_STREAM:
                there.listen()
        except OSError as error:
            failed.append(error)

    # A thread of its own enters the namespace and ends there.
    thread = threading.Thread(target=make, name="listener")
    thread.start()
    thread.join()
    if failed:
        for each in made:
            each.close()
        raise failed[0]
    return made[0]


def _enter(namespace: str) -> None:
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)

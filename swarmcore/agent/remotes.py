"""The managers that a node knows, each with a weight that its behaviour moves (SwarmKit: 8.11)."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from swarmcore.api.types_pb2 import WeightedPeer

log = logging.getLogger("swarmcore.agent")

FILE_NAME: Final = "state.json"
DEFAULT_OBSERVATION: Final = 10
MAX_WEIGHT: Final = 256
_SMOOTHING: Final = 0.5
_SMALLEST_SHARE: Final = 0.001
"""A manager that failed often is still tried now and then."""


@dataclass(frozen=True, slots=True)
class RemotePeer:
    """One manager; the node id is not known of an address that an operator typed."""

    node_id: str
    addr: str


class Remotes:
    """Weights by manager. Written to `state.json` whenever the set of managers changes."""

    def __init__(self, path: Path | None = None, *, rng: Random | None = None) -> None:
        """`path` of the file to read and keep; None keeps nothing."""
        self._path = path
        self._file = _File(path) if path is not None else None
        self._rng = rng if rng is not None else Random()
        self._weights: dict[RemotePeer, int] = {}

    def load(self) -> bool:
        """Read the file; return whether any manager is known then. A damaged file is said and counts as none."""
        if self._path is None:
            return bool(self._weights)
        try:
            entries = json.loads(self._path.read_bytes())
            peers = [RemotePeer(str(entry.get("node_id", "")), str(entry["addr"])) for entry in entries]
        except FileNotFoundError:
            return bool(self._weights)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("can't read the managers from %s (%s): it is ignored", self._path, error)
            return bool(self._weights)
        for peer in peers:
            self._weights.setdefault(peer, DEFAULT_OBSERVATION)
        return bool(self._weights)

    @property
    def weights(self) -> dict[RemotePeer, int]:
        return dict(self._weights)

    def observe(self, peer: RemotePeer, observation: int) -> None:
        """Move the peer's weight half-way towards what was seen; a new one starts from 0."""
        is_new = peer not in self._weights
        old = self._weights.get(peer, 0)
        clipped = max(-MAX_WEIGHT, min(observation, MAX_WEIGHT))
        self._weights[peer] = math.ceil(_SMOOTHING * clipped + (1 - _SMOOTHING) * old)
        if is_new:
            self._save()

    def observe_if_known(self, peer: RemotePeer, observation: int) -> None:
        """The same for a peer that may have been taken from the list meanwhile."""
        if peer in self._weights:
            self.observe(peer, observation)

    def replace(self, managers: Iterable[WeightedPeer]) -> None:
        """Take the list that a manager sent: all are observed, others are forgotten. An empty list changes nothing."""
        listed = {RemotePeer(item.peer.node_id, item.peer.addr): item.weight for item in managers if item.peer.addr}
        if not listed:
            return
        before = set(self._weights)
        for peer in before - listed.keys():
            del self._weights[peer]
        for peer, weight in listed.items():
            old = self._weights.get(peer, 0)
            clipped = max(-MAX_WEIGHT, min(weight, MAX_WEIGHT))
            self._weights[peer] = math.ceil(_SMOOTHING * clipped + (1 - _SMOOTHING) * old)
        if before != listed.keys():
            self._save()

    def remove(self, peer: RemotePeer) -> None:
        if self._weights.pop(peer, None) is not None:
            self._save()

    def select(self, excluded: Sequence[str] = ()) -> RemotePeer | None:
        """A manager by chance, with shares by weight; `excluded` are addresses."""
        peers = [peer for peer in self._weights if peer.addr not in excluded]
        if not peers:
            return None
        shares = [max(self._weights[peer], 0) + _SMALLEST_SHARE for peer in peers]
        return self._rng.choices(peers, shares)[0]

    def pick(self) -> str:
        """The address of a manager by chance, as `select`; empty where none is known."""
        peer = self.select()
        return peer.addr if peer is not None else ""

    def flush(self, seconds: float = 5.0) -> None:
        """Return once the file holds what is known, or after so long."""
        if self._file is not None:
            self._file.flush(seconds)

    def _save(self) -> None:
        if self._file is not None:
            self._file.put([{"node_id": peer.node_id, "addr": peer.addr} for peer in self._weights])


class _File:
    """Written by a thread, the newest list last: the disk may hang, and the loop must not wait for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._next: list[dict[str, str]] | None = None
        self._thread: threading.Thread | None = None

    def put(self, entries: list[dict[str, str]]) -> None:
        with self._lock:
            self._next = entries
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="list of managers", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._lock:
                entries, self._next = self._next, None
                if entries is None:
                    self._thread = None
                    return
            self._write(entries)

    def _write(self, entries: list[dict[str, str]]) -> None:
        new = self._path.with_suffix(".new")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(entries, file)
            new.replace(self._path)
        except OSError as error:
            log.warning("can't write the managers to %s: %s", self._path, error.strerror)

"""Which manager is asked."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore.api.types_pb2 import Peer, WeightedPeer

A, B = RemotePeer("a", "10.0.0.1:4242"), RemotePeer("b", "10.0.0.2:4242")


def listed(*peers: RemotePeer, weight: int = 10) -> list[WeightedPeer]:
    return [WeightedPeer(peer=Peer(node_id=peer.node_id, addr=peer.addr), weight=weight) for peer in peers]


def test_a_weight_goes_half_way_to_what_was_seen_and_stays_in_bounds() -> None:
    remotes = Remotes()

    seen = []
    for observation in (10, 10, -10, 10_000, -10_000):
        remotes.observe(A, observation)
        seen.append(remotes.weights[A])

    assert seen == [5, 8, -1, 128, -64]


def test_a_manager_that_fails_is_rarely_chosen_and_still_tried() -> None:
    remotes = Remotes(rng=Random(1))
    remotes.replace(listed(A, B))
    for _ in range(5):
        remotes.observe(A, -10)

    chosen = [remotes.select() for _ in range(20_000)]

    assert 0 < chosen.count(A) < 200


def test_the_only_manager_is_chosen_however_often_it_failed() -> None:
    remotes = Remotes()
    remotes.observe(A, -10)

    assert remotes.select() == A
    assert remotes.select(excluded=[A.addr]) is None


def test_managers_that_are_no_longer_listed_are_forgotten() -> None:
    remotes = Remotes()
    remotes.replace(listed(A))
    remotes.replace(listed(B))
    assert set(remotes.weights) == {B}

    remotes.replace([])
    remotes.observe_if_known(A, 10)

    assert set(remotes.weights) == {B}


def test_the_list_survives_a_restart_in_a_file_of_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    remotes = Remotes(path)
    remotes.replace(listed(A, B))

    remotes.flush()
    again = Remotes(path)

    assert again.load()
    assert set(again.weights) == {A, B}
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())[0] == {"node_id": "a", "addr": "10.0.0.1:4242"}


@pytest.mark.parametrize("text", ["", "{}}", "[1]", '[{"node_id": "x"}]', "3"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)

    assert not Remotes(path).load()
    assert "it is ignored" in caplog.text


def test_a_disk_that_hangs_holds_nobody_up_and_gets_the_newest_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, free, has_begun = tmp_path / "state.json", threading.Event(), threading.Event()
    real = os.open

    def hang(*arguments: Any, **more: Any) -> int:
        has_begun.set()
        assert free.wait(20)
        return real(*arguments, **more)

    remotes = Remotes(path)
    monkeypatch.setattr(os, "open", hang)
    remotes.observe(RemotePeer("a", "10.0.0.1:4242"), 10)
    assert has_begun.wait(20)
    remotes.observe(RemotePeer("b", "10.0.0.2:4242"), 10)
    remotes.observe(RemotePeer("c", "10.0.0.3:4242"), 10)
    free.set()
    remotes.flush()

    assert [entry["node_id"] for entry in json.loads(path.read_text())] == ["a", "b", "c"]

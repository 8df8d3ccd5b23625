"""What opens a manager's private key, and what is left of a manager that is none any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmcore.ca.root import new_key, seal_key
from swarmcore.errors import ConfigurationError
from swarmcore.node.unlocking import find_secret, remove_log
from swarmcore.replication.keys import KeyRing
from swarmcore.testing.replication import running_replica

UNLOCK_KEY, OTHER = b"u" * 32, b"o" * 32


@pytest.fixture
def raft(tmp_path: Path) -> Path:
    return tmp_path / "raft"


def ring(raft: Path, unlock_key: bytes | None = UNLOCK_KEY) -> KeyRing:
    raft.mkdir()
    return KeyRing.create(raft / "keys.json", unlock_key, is_identity_exposed=True)


def test_any_key_of_the_identity_opens_the_private_key(raft: Path) -> None:
    keys = ring(raft)
    old = keys.identity_keys[0]
    new = keys.fresh_identity()

    for secret in (old, new):
        assert find_secret(raft, UNLOCK_KEY, seal_key(new_key(), secret)) == secret


def test_before_there_is_a_log_the_unlock_key_itself_does(raft: Path) -> None:
    sealed = seal_key(new_key(), UNLOCK_KEY)

    assert find_secret(raft, UNLOCK_KEY, sealed) == UNLOCK_KEY
    with pytest.raises(ConfigurationError, match="node is locked, and needs a valid unlock key"):
        find_secret(raft, OTHER, sealed)
    with pytest.raises(ConfigurationError, match="needs --unlock-key-file instead"):
        find_secret(raft, None, sealed)


def test_a_kill_between_the_log_and_the_private_key_leaves_both_to_one_unlock_key(raft: Path) -> None:
    ring(raft)

    assert find_secret(raft, UNLOCK_KEY, seal_key(new_key(), UNLOCK_KEY)) == UNLOCK_KEY


def test_another_unlock_key_is_refused(raft: Path) -> None:
    sealed = seal_key(new_key(), ring(raft).identity_keys[0])

    for given in (None, OTHER):
        with pytest.raises(ConfigurationError, match="node is locked, and needs a valid unlock key"):
            find_secret(raft, given, sealed)


def test_a_private_key_of_somebody_else_is_opened_by_nothing(raft: Path) -> None:
    ring(raft)

    assert find_secret(raft, UNLOCK_KEY, seal_key(new_key(), OTHER)) is None


async def test_nothing_is_left_of_a_log_and_its_keys_go_first(raft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_replica(raft) as running:
        await running.create("task")
    removed = []
    real = os.unlink

    def unlink(path: str | Path, **more: int) -> None:
        removed.append(Path(path).name)
        real(path, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    remove_log(raft)
    remove_log(raft)

    assert removed[0] == "keys.json" and "log-0000000000000001" in removed
    assert raft.name not in os.listdir(raft.parent)

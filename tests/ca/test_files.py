"""A node's trust on disk, killed at each step of what changes it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.files import CertificateFolder
from swarmcore.ca.root import new_csr, new_key, public_key_of_csr
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.testing.clock import SimulatedClock

CALLS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "fchmod")

Stop = Callable[[int, str, Any], BaseException | None]


class Killed(BaseException):
    """Nothing that the process still wanted to do happens."""


@contextmanager
def steps(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> Iterator[None]:
    """Every call that changes the disk asks `stop` first: its number, its name, its first argument."""
    count = 0
    dead: BaseException | None = None
    with monkeypatch.context() as patch:

        def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(target: Any, *args: Any, **kwargs: Any) -> Any:
                nonlocal count, dead
                if isinstance(dead, Killed):
                    raise dead
                count += 1
                error = stop(count, name, target)
                if error is not None:
                    dead = error
                    raise error
                return real(target, *args, **kwargs)

            return call

        for name in CALLS:
            patch.setattr(os, name, guarded(name, getattr(os, name)))
        yield


def at_the_rename_of(file: str, error: BaseException) -> Stop:
    return lambda _, name, path: error if name == "rename" and Path(path).name == file else None


def at_step(step: int, error: BaseException) -> Stop:
    return lambda number, *_: error if number == step else None


def renewed(
    security: SecurityConfig, root: Any, clock: SimulatedClock, role: NodeRole.ValueType | None = None
) -> tuple[bytes, bytes]:
    key = new_key()
    chain = root.sign(
        public_key_of_csr(new_csr(key)),
        node_id=security.node_id,
        role=security.role if role is None else role,
        cluster_id=security.cluster_id,
        now=clock.now(),
    )
    return chain, key


def test_a_cluster_that_is_killed_while_it_is_made_starts_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, kills = SimulatedClock(), 0
    for step in range(1, 200):
        folder = tmp_path / str(step) / "certificates"
        try:
            with steps(monkeypatch, at_step(step, Killed())):
                SecurityConfig.create_cluster(folder, clock)
        except Killed:
            kills += 1
        loaded = SecurityConfig.load(folder, clock) or SecurityConfig.create_cluster(folder, clock)

        assert loaded.root_with_key is not None
        assert SecurityConfig.load(folder, clock).node_id == loaded.node_id  # type: ignore[union-attr]
        assert {each.name for each in folder.iterdir()} >= {"swarm-node.crt", "swarm-node.key", "swarm-root-ca.key"}
        if kills < step:
            break
    assert kills > 15


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")])
def test_a_renewal_that_stops_anywhere_leaves_the_old_identity_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    clock, stops = SimulatedClock(), 0
    for step in range(1, 200):
        folder = tmp_path / str(step)
        security = SecurityConfig.create_cluster(folder, clock)
        root, old = security.root_with_key, security.material.chain_pem
        chain, key = renewed(security, root, clock)
        try:
            with steps(monkeypatch, at_step(step, error)):
                security.install(chain, key)
        except (Killed, ConfigurationError):
            stops += 1
        loaded = SecurityConfig.load(folder, clock)

        assert loaded is not None
        assert loaded.material.chain_pem in (old, chain)
        if stops < step:
            assert loaded.material.chain_pem == chain
            break
    assert stops > 10


def test_two_renewals_that_stop_one_after_the_other_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's key is in place and its certificate is not; the second one is killed before its key is."""
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    root = security.root_with_key
    first, second = renewed(security, root, clock), renewed(security, root, clock)
    with steps(monkeypatch, at_the_rename_of(".swarm-node.crt", OSError(5, "Input/output error"))):
        with pytest.raises(ConfigurationError, match="Input/output error"):
            security.install(*first)
    with steps(monkeypatch, at_the_rename_of("swarm-node.key.new", Killed())):
        with pytest.raises(Killed):
            security.install(*second)

    loaded = SecurityConfig.load(tmp_path, clock)

    assert loaded is not None
    assert loaded.material.chain_pem == first[0]


def test_keys_are_private_whatever_the_umask_and_whatever_a_kill_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    CertificateFolder(folder).create()
    for name in ("swarm-node.key.new", "swarm-root-ca.key.new"):
        (folder / name).write_text("left behind")
        (folder / name).chmod(0o644)
    before = os.umask(0)
    try:
        SecurityConfig.create_cluster(folder, SimulatedClock())
    finally:
        os.umask(before)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert modes == {
        "swarm-node.crt": 0o644,
        "swarm-node.key": 0o600,
        "swarm-root-ca.crt": 0o644,
        "swarm-root-ca.key": 0o600,
    }


def test_the_name_of_a_new_folder_is_as_durable_as_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("swarmcore.replication.durable.sync_folder", synced.append)

    CertificateFolder(tmp_path / "state" / "certificates").create()

    assert set(synced) == {tmp_path, tmp_path / "state"}


def test_a_sealed_key_is_no_key_without_its_secret(tmp_path: Path) -> None:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    security.seal_key(b"secret")
    security.seal_key(b"secret")

    on_disk = (tmp_path / "swarm-node.key").read_bytes()
    assert b"ENCRYPTED" in on_disk and stat.S_IMODE((tmp_path / "swarm-node.key").stat().st_mode) == 0o600
    for find_secret in (None, lambda key: b"another"):
        with pytest.raises(DamagedStateError, match="don't belong together"):
            SecurityConfig.load(tmp_path, clock, find_secret=find_secret)
    loaded = SecurityConfig.load(tmp_path, clock, find_secret=lambda key: b"secret")
    assert loaded is not None and loaded.material.key_pem == security.material.key_pem


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")])
def test_a_sealed_key_stays_sealed_and_whole_wherever_a_renewal_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    clock, stops = SimulatedClock(), 0
    for step in range(1, 200):
        folder = tmp_path / str(step)
        security = SecurityConfig.create_cluster(folder, clock)
        root, old = security.root_with_key, security.material.chain_pem
        chain, key = renewed(security, root, clock)
        try:
            with steps(monkeypatch, at_step(step, error)):
                security.seal_key(b"secret")
                security.install(chain, key)
        except (Killed, ConfigurationError):
            stops += 1
        loaded = SecurityConfig.load(folder, clock, find_secret=lambda key: b"secret")

        assert loaded is not None
        assert loaded.material.chain_pem in (old, chain)
        if stops < step:
            assert b"ENCRYPTED" in (folder / "swarm-node.key").read_bytes()
            break
    assert stops > 15


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("becomes", [NodeRole.WORKER, NodeRole.MANAGER])
def test_a_change_of_role_that_stops_anywhere_leaves_the_old_role_locked_as_it_was_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, becomes: NodeRole.ValueType
) -> None:
    """A manager's key is never readable on the disk, and a worker's always is."""
    clock, stops = SimulatedClock(), 0
    for step in range(1, 200):
        folder = tmp_path / str(step)
        security = SecurityConfig.create_cluster(folder, clock)
        root = security.root_with_key
        security.seal_key(b"secret")
        if becomes == NodeRole.MANAGER:
            security.install(*renewed(security, root, clock, NodeRole.WORKER))
        before = security.role
        try:
            with steps(monkeypatch, at_step(step, error)):
                security.install(*renewed(security, root, clock, becomes), unlock_key=b"secret")
        except (Killed, ConfigurationError):
            stops += 1
        loaded = SecurityConfig.load(folder, clock, find_secret=lambda key: b"secret")

        assert loaded is not None and loaded.role in (before, becomes)
        assert (loaded.secret is None) == (loaded.role == NodeRole.WORKER)
        if stops < step:
            assert loaded.role == becomes
            break
    assert stops > 10


def test_a_key_that_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path, SimulatedClock())
    security.seal_key(b"secret")
    (tmp_path / "swarm-node.key.new").write_bytes(security.material.key_pem)

    SecurityConfig.load(tmp_path, SimulatedClock(), find_secret=lambda key: b"secret")

    assert not (tmp_path / "swarm-node.key.new").exists()


def test_a_key_can_be_sealed_with_another_secret(tmp_path: Path) -> None:
    clock = SimulatedClock()
    security = SecurityConfig.create_cluster(tmp_path, clock)
    for secret in (b"first", b"second"):
        security.seal_key(secret)
        loaded = SecurityConfig.load(tmp_path, clock, find_secret=lambda key, secret=secret: secret)  # type: ignore[misc]

        assert loaded is not None and loaded.secret == secret == security.secret

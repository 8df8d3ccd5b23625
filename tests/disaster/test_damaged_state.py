"""Whatever a disk did to a state directory: a start works, or ends in one line that says what to do."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import SwarmError
from swarmcore.node.restoring import finish_restore
from swarmcore.node.unlocking import find_secret
from swarmcore.replication.inspection import inspect
from swarmcore.replication.replica import Replica
from swarmcore.store.store import Store
from swarmcore.testing.cluster import swarmd
from swarmcore.testing.faults import refused_start, short_folder
from swarmcore.testing.ports import free_port

Mutation = Callable[[Path], None]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def removed(path: Path) -> None:
    path.unlink()


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def another_json(path: Path) -> None:
    path.write_bytes(b"[1, 2]\n")


def json_of_other_types(path: Path) -> None:
    try:
        fields = json.loads(path.read_bytes())
    except ValueError:
        fields = {}
    path.write_text(json.dumps({key: None for key in fields} if isinstance(fields, dict) else None))


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def doubled(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


MUTATIONS: tuple[Mutation, ...] = (
    emptied,
    halved,
    removed,
    zeroed,
    garbage,
    a_folder,
    another_json,
    json_of_other_types,
    one_bit,
    doubled,
)


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """The state directory of a manager that ran, with a snapshot."""
    with short_folder() as folder:
        flags = ("--listen-remote-api", f"127.0.0.1:{free_port()}", "--executor", "process")
        with swarmd(folder / "m1", *flags) as node:
            for number in range(5):
                node.swarmctl("config", "create", f"c{number}", stdin=b"x")
            # What a locked log is rewritten with: a snapshot, and a second segment.
            node.swarmctl("cluster", "update", "default", "--autolock")
            node.wait_says("is replaced")
            node.swarmctl("cluster", "update", "default", "--no-autolock")
            node.wait_says("not locked any more")
        yield node.state_dir


def files(state: Path) -> list[Path]:
    found = [path for path in sorted(state.rglob("*")) if path.is_file()]
    return [path for path in found if path.parent.name in ("raft", "certificates")]


async def start(state: Path) -> None:
    """What a manager does before anything else."""
    await asyncio.to_thread(finish_restore, state)
    security = SecurityConfig.load(
        state / "certificates", find_secret=lambda pem: find_secret(state / "raft", None, pem)
    )
    if security is None:
        return
    replica = await Replica.open(
        folder=state / "raft", store=Store(), node_id=security.node_id, address="", bootstrap=False
    )
    await replica.aclose()


async def test_no_damage_of_any_file_ends_in_anything_but_one_line(whole: Path, tmp_path: Path) -> None:
    names = [path.relative_to(whole) for path in files(whole)]
    assert len(names) >= 7 and any("snapshot" in str(name) for name in names), names
    complaints: dict[str, str] = {}

    for name in names:
        for mutate in MUTATIONS:
            state = tmp_path / "state"
            shutil.copytree(whole, state)
            mutate(state / name)
            case = f"{name} {mutate.__name__}"
            try:
                await start(state)
            except SwarmError as error:
                complaints[case] = str(error)
            except Exception as error:
                raise AssertionError(f"{case}: {error!r}") from error
            shutil.rmtree(state)

    assert all("\n" not in text and len(text) < 900 for text in complaints.values())
    aims = ("--restore", "start with the state directory", "can't use the state in", "can't read", "can't write")
    aimless = {case: text for case, text in complaints.items() if not any(words in text for words in aims)}
    assert not aimless
    # And the damage is seen: but for what nobody reads any more.
    for file in ("raft/keys.json", "raft/member.json", "certificates/swarm-node.key", "certificates/swarm-root-ca.crt"):
        assert f"{file} emptied" in complaints and f"{file} garbage" in complaints


async def test_looking_into_it_never_fails(whole: Path, tmp_path: Path) -> None:
    for path in files(whole):
        if path.parent.name != "raft":
            continue
        for mutate in MUTATIONS:
            state = tmp_path / "state"
            shutil.copytree(whole, state)
            mutate(state / "raft" / path.name)
            try:
                found = inspect(state / "raft", None)
                assert found.damage or mutate in (removed, halved), (path.name, mutate)
            except OSError:
                assert mutate is a_folder
            shutil.rmtree(state)


def test_a_real_start_says_it_in_one_line(whole: Path, tmp_path: Path) -> None:
    for name in ("raft/keys.json", "raft/member.json", "certificates/swarm-node.key"):
        state = tmp_path / "state"
        shutil.copytree(whole, state)
        garbage(state / name)

        complaint = refused_start(
            *("-d", str(state), "--listen-control-api", str(tmp_path / "s"), "--executor", "process"),
            *("--listen-remote-api", "127.0.0.1:0"),
        )

        assert "--restore" in complaint
        shutil.rmtree(state)

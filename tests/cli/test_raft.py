"""`swarmctl raft`: what is in a state directory, in words and as JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from swarmcore.replication.snapshots import Limits
from swarmcore.testing.control_socket import Ctl
from swarmcore.testing.replication import running_replica


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state directory of a manager that wrote three tasks, the second of which is in a snapshot too."""

    async def write() -> None:
        async with running_replica(tmp_path / "raft", limits=Limits(snapshot_entries=4, reserve_bytes=0)) as running:
            for id in ("one", "two", "three"):
                await running.create(id, log="hidden words")

    asyncio.run(write())
    return tmp_path


def test_dump_shows_records_by_id_and_never_what_is_in_them(state: Path, bare_ctl: Ctl) -> None:
    shown = bare_ctl("raft", "dump", "-d", str(state))

    assert shown.code == 0
    for words in ("put task three", "a leader began its term", "1: node node-1 at 127.0.0.1:4242, voter", "Hard state"):
        assert words in shown.out
    assert "hidden words" not in shown.out


def test_dump_as_json_can_be_cut_to_some_entries(state: Path, bare_ctl: Ctl) -> None:
    shown = json.loads(bare_ctl("raft", "dump", "-d", str(state), "--json", "--from", "3", "--to", "4").out)

    assert [entry["index"] for entry in shown["entries"]] == [3, 4]
    assert shown["entries"][0]["changes"] == [
        {"action": "put", "table": "task", "id": "one", "bytes": shown["entries"][0]["changes"][0]["bytes"]}
    ]
    assert (shown["last"]["index"], shown["raft_id"], shown["damage"]) == (5, 1, [])
    assert shown["managers"] == [{"raft_id": 1, "node_id": "node-1", "address": "127.0.0.1:4242", "is_voter": True}]


def test_verify_says_that_all_is_whole(state: Path, bare_ctl: Ctl) -> None:
    shown = bare_ctl("raft", "verify", "-d", str(state))

    assert shown.code == 0 and "whole; " in shown.out and "last entry 5 of term 2" in shown.out


@pytest.mark.parametrize("command", ["verify", "dump"])
def test_damage_is_named_with_file_and_byte_and_the_exit_code_is_1(state: Path, bare_ctl: Ctl, command: str) -> None:
    path = next((state / "raft").glob("log-*"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    shown = bare_ctl("raft", command, "-d", str(state))
    as_json = bare_ctl("raft", command, "-d", str(state), "--json")

    assert shown.code == as_json.code == 1
    assert f"'{path}' is damaged at byte 60" in shown.out
    assert {"path": str(path), "offset": 60} == {
        key: value for key, value in json.loads(as_json.out)["damage"][0].items() if key != "what"
    }


def test_an_unfinished_write_is_said_and_is_no_damage(state: Path, bare_ctl: Ctl) -> None:
    path = next((state / "raft").glob("log-*"))
    path.write_bytes(path.read_bytes()[:-1])

    shown = bare_ctl("raft", "verify", "-d", str(state))

    assert shown.code == 0 and "an unfinished write at byte" in shown.out


def test_where_there_is_no_manager_it_says_so(tmp_path: Path, bare_ctl: Ctl) -> None:
    shown = bare_ctl("raft", "verify", "-d", str(tmp_path))

    assert shown.code == 1 and "there is no raft state in" in shown.err

"""Reads that a majority confirms, between real replicas: what is lost is asked for again, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Config
from swarmcore.errors import UnavailableError
from swarmcore.raft.messages import Message, ReadRequest
from swarmcore.replication import reads
from swarmcore.replication import replica as replica_module
from swarmcore.testing.manager_group import GroupMember, manager_group


async def write(member: GroupMember, name: str) -> None:
    config = Config(id=name)
    config.spec.annotations.name = name
    await member.store.update(lambda tx: tx.config.create(config))


async def test_a_follower_shows_all_that_was_acknowledged_before_it_was_asked(tmp_path: Path) -> None:
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        others = [member for member in group.members.values() if member is not leader]
        for number in range(20):
            await write(leader, f"c{number}")

            for other in others:
                await other.replica.read_barrier()
                assert f"c{number}" in other.store.view.config


async def test_a_question_that_was_lost_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "AGAIN_SECONDS", 0.05)
    async with manager_group(tmp_path, 2) as group:
        leader = await group.leader()
        follower = next(member for member in group.members.values() if member is not leader)
        send, lost = follower.replica._send, 0

        def lossy(message: Message) -> None:
            nonlocal lost
            if isinstance(message, ReadRequest) and lost < 2:
                lost += 1
            else:
                send(message)

        monkeypatch.setattr(follower.replica, "_send", lossy)

        await asyncio.wait_for(follower.replica.read_barrier(), 10)

        assert lost == 2


async def test_without_a_majority_a_read_fails_in_time_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "READ_SECONDS", 0.3)
    async with manager_group(tmp_path, 3) as group:
        leader = await group.leader()
        for member in group.members.values():
            if member is not leader:
                await member.stop()

        for _ in range(5):
            with pytest.raises(UnavailableError, match=r"confirm the read"):
                await asyncio.wait_for(leader.replica.read_barrier(), 10)

        assert leader.replica._reads.is_empty
        assert leader.replica._applier._waiters == []

"""A real process, killed at random moments: nothing that it acknowledged is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from swarmcore.api.objects_pb2 import Task
from swarmcore.replication.replica import Replica
from swarmcore.replication.snapshots import Limits
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction
from swarmcore.testing.replication import running_replica

ROUNDS = 20
OFTEN = Limits(snapshot_entries=150, keep_entries=20, segment_bytes=64 * 1024, reserve_bytes=0)


async def write_until_killed(folder: Path, prefix: str) -> None:
    """Three writers; each id goes out through standard output once its write was acknowledged."""
    store = Store()
    replica = await Replica.open(folder=folder, store=store, node_id="node-1", address="", bootstrap=True, limits=OFTEN)
    store.connect(replica)

    async def write(writer: int) -> None:
        for number in range(1 << 30):
            id = f"{prefix}-{writer}-{number}"

            def create(tx: Transaction, id: str = id, size: int = number % 7 * 100) -> None:
                task = Task(id=id, service_id="service")
                task.status.message = "x" * size
                tx.task.create(task)

            await store.update(create)
            os.write(1, id.encode() + b"\n")

    async with asyncio.TaskGroup() as group:
        group.create_task(replica.run())
        group.create_task(store.run())
        await replica.wait_leadership_change(0)
        for writer in range(3):
            group.create_task(write(writer))


async def test_kill_at_any_moment_loses_nothing_acknowledged(folder: Path) -> None:
    chance = random.Random(5)
    acknowledged: set[str] = set()
    for round in range(ROUNDS):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", __file__, str(folder), f"r{round}", stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        wanted = chance.choice((1, 5, 50, 200, 400))
        lines: list[bytes] = []
        while len(lines) < wanted and (line := await process.stdout.readline()):
            lines.append(line)
        process.send_signal(signal.SIGKILL)
        lines += (await process.stdout.read()).splitlines(keepends=True)
        assert await process.wait() == -signal.SIGKILL
        acknowledged |= {line.decode().strip() for line in lines if line.endswith(b"\n")}

        if round % 4 == 3:
            async with running_replica(folder) as running:
                ids = running.task_ids
                assert len(ids) == len(set(ids))
                assert acknowledged <= set(ids)
                # Each writer waits for its answer, so at most one write of each was under way at each kill.
                assert len(ids) <= len(acknowledged) + 3 * (round + 1)

    assert len(acknowledged) >= ROUNDS


if __name__ == "__main__":
    asyncio.run(write_until_killed(Path(sys.argv[1]), sys.argv[2]))

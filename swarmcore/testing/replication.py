"""A replica on a real folder, with the store that writes through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from swarmcore.api.objects_pb2 import Task
from swarmcore.replication.replica import Replica
from swarmcore.replication.snapshots import Limits
from swarmcore.store.store import Store
from swarmcore.store.transaction import Transaction

NODE = "node-1"
SMALL = Limits(reserve_bytes=0)


@dataclass(frozen=True, slots=True)
class Running:
    replica: Replica
    store: Store
    run: asyncio.Task[None]

    async def create(self, *ids: str, log: str = "") -> None:
        """Write tasks of these ids, together."""

        def write(tx: Transaction) -> None:
            for id in ids:
                task = Task(id=id, service_id="service")
                task.status.message = log
                tx.task.create(task)

        await self.store.update(write)

    @property
    def task_ids(self) -> list[str]:
        return [task.id for task in self.store.view.task.all()]


@asynccontextmanager
async def running_replica(
    folder: Path,
    *,
    limits: Limits = SMALL,
    unlock_key: bytes | None = None,
    address: str = "127.0.0.1:4242",
    leads: bool = True,
) -> AsyncIterator[Running]:
    """Open `folder` and lead; on leaving the block everything is stopped, as a process would be."""
    store = Store(clock=lambda: 1_700_000_000.0, checked=True)
    replica = await Replica.open(
        folder=folder,
        store=store,
        node_id=NODE,
        address=address,
        bootstrap=True,
        limits=limits,
        unlock_key=unlock_key,
    )
    store.connect(replica)
    run = asyncio.create_task(replica.run())
    writer = asyncio.create_task(store.run())
    try:
        if leads:
            await replica.wait_leadership_change(0)
        yield Running(replica, store, run)
    finally:
        run.cancel()
        writer.cancel()
        await asyncio.gather(run, writer, return_exceptions=True)
        await replica.aclose()

"""Executors that leave something behind."""

from __future__ import annotations

import asyncio
import os

from swarmcore.testing.executor_contract.memory import (
    Box,
    ModelController,
)
from swarmcore.testing.executor_contract.mutants.corpus import FOR_EVER, LITTER, controller


@controller("test_removed_tasks_leave_nothing_on_the_engine")
class LeavesVolumes(ModelController):
    def forget(self, box: Box) -> None:
        super().forget(box)
        if not self.is_recovered:
            self.engine.lost_volumes |= box.volumes


@controller("test_tasks_leave_no_file_descriptor")
class LeaksDescriptors(ModelController):
    async def start(self) -> None:
        LITTER.descriptors.append(os.open(os.devnull, os.O_RDONLY))
        await super().start()


@controller("test_tasks_leave_no_thread")
class LeaksThreads(ModelController):
    async def prepare(self) -> None:
        LITTER.add_thread()
        await super().prepare()


@controller("test_tasks_leave_no_asyncio_task")
class LeaksTasks(ModelController):
    async def start(self) -> None:
        await super().start()
        self.executor.litter.append(asyncio.create_task(asyncio.sleep(FOR_EVER)))

"""What the classes share that check containers on an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from swarmcore.plugin.executor import Executor, HostInfo
from swarmcore.testing.executor_contract.container_tasks import ContainerEngine
from swarmcore.testing.executor_contract.marks import in_a_loop


class OnEngine:
    """The subclass, or its module, has a fixture `engine`."""

    pytestmark = in_a_loop

    @pytest_asyncio.fixture
    async def executor(self, engine: ContainerEngine, tmp_path: Path) -> AsyncIterator[Executor]:
        executor = await engine.factory.create(HostInfo(state_dir=str(tmp_path), engine_addr=engine.address))
        yield executor
        await executor.aclose()

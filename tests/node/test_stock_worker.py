"""An unmodified Docker Engine gets its certificate from our CA and comes back as an authenticated worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmcore.api.caller import Caller, current_caller
from swarmcore.api.dispatcher_pb2 import SessionMessage, SessionRequest
from swarmcore.api.dispatcher_pb2_grpc import DispatcherServicer, add_DispatcherServicer_to_server
from swarmcore.api.types_pb2 import IssuanceStatus, NodeRole
from swarmcore.node.listeners import Service
from swarmcore.testing.engines import DockerEngine
from swarmcore.testing.trust import trusted_manager


class Doorkeeper(DispatcherServicer):
    """Takes note of the first session and lets it wait."""

    def __init__(self) -> None:
        self.caller: asyncio.Future[Caller] = asyncio.get_running_loop().create_future()

    async def Session(self, request: SessionRequest, context: Any) -> AsyncIterator[SessionMessage]:
        if not self.caller.done():
            self.caller.set_result(current_caller())
        await asyncio.Event().wait()
        yield SessionMessage()


@pytest.mark.engine
async def test_a_stock_engine_joins_with_a_token_and_calls_as_a_worker(
    tmp_path: Path, docker_engine: DockerEngine
) -> None:
    doorkeeper = Doorkeeper()  # type: ignore[abstract]  # the generated base answers the other calls
    services: list[Service] = [(add_DispatcherServicer_to_server, doorkeeper)]
    async with trusted_manager(tmp_path, services=services) as manager:
        join = ("swarm", "join", "--token", manager.token(), "--advertise-addr", "127.0.0.1")
        listen = ("--listen-addr", "127.0.0.1:0")
        joining = asyncio.create_task(
            asyncio.to_thread(docker_engine.docker, *join, *listen, manager.address, check=False)
        )
        try:
            async with asyncio.timeout(40):
                caller = await doorkeeper.caller
        finally:
            # `docker swarm join` waits for a session that no dispatcher here grants; leaving ends the wait.
            await asyncio.to_thread(docker_engine.docker, "swarm", "leave", "--force", check=False)
            await joining
        node = manager.store.view.node.get(caller.node_id)

    assert caller.role == NodeRole.WORKER and caller.remote_addr == "127.0.0.1"
    assert node is not None and node.certificate.status.state == IssuanceStatus.ISSUED

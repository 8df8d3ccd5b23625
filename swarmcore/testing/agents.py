"""Many workers in this process that join real managers over the network: real agents, engines that run nothing.

They do all that a worker does between its engine and its manager: certificates, sessions, heartbeats, reports, and the
search for another manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from swarmcore.agent.agent import Agent
from swarmcore.agent.connections import Connection, RemoteConnections
from swarmcore.agent.remotes import DEFAULT_OBSERVATION, RemotePeer, Remotes
from swarmcore.api.types_pb2 import NodeDescription
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock, SystemClock
from swarmcore.testing.executors import FakeExecutor

JOINING_AT_ONCE = 6


class OffsetClock(SystemClock):
    """A wall clock that is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return time.time() + self._seconds


class _Noted(RemoteConnections):
    """Notes when a manager gave a session."""

    def __init__(self, remotes: Remotes, security: SecurityConfig, sessions: list[float]) -> None:
        super().__init__(remotes, security.open_channel)
        self._sessions = sessions

    async def open(self) -> Connection:  # type: ignore[override]
        connection = await super().open()
        succeeded = connection.succeeded

        def note() -> None:
            self._sessions.append(time.monotonic())
            succeeded()

        connection.succeeded = note  # type: ignore[method-assign]
        return connection


@dataclass(slots=True)
class SimulatedWorker:
    """One agent."""

    name: str
    node_id: str
    agent: Agent
    executor: FakeExecutor
    remotes: Remotes
    sessions: list[float] = field(default_factory=list)
    """When it got each of its sessions, monotonic."""
    running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.running = asyncio.create_task(self.agent.run(), name=self.name)

    async def stop(self) -> None:
        """End it without a word, as a machine that loses power."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait({self.running})
            self.running = None


@dataclass(slots=True)
class AgentFleet:
    """Workers by name."""

    folder: Path
    workers: dict[str, SimulatedWorker] = field(default_factory=dict)

    async def join(self, addresses: list[str], token: str, count: int, clock: Clock | None = None) -> None:
        """Let `count` more workers join, the next one by the next address, and wait until each has a session."""
        gate = asyncio.Semaphore(JOINING_AT_ONCE)
        first = len(self.workers)

        async def add(number: int) -> SimulatedWorker:
            async with gate:
                return await self._join(f"w{number}", addresses[number % len(addresses)], token, clock)

        added = await asyncio.gather(*(add(number) for number in range(first, first + count)))
        for worker in added:
            self.workers[worker.name] = worker
            worker.start()
        await asyncio.gather(*(worker.agent.wait_ready() for worker in added))

    async def _join(self, name: str, address: str, token: str, clock: Clock | None) -> SimulatedWorker:
        folder = self.folder / name
        folder.mkdir(parents=True)
        security = await SecurityConfig.join(
            folder / "certificates", address, token, join_methods={}, clock=SystemClock()
        )
        remotes = Remotes()
        remotes.observe(RemotePeer("", address), DEFAULT_OBSERVATION)
        sessions: list[float] = []
        executor = FakeExecutor(description=NodeDescription(hostname=name))
        agent = Agent(
            node_id=security.node_id,
            executors={"container": executor},
            state_dir=folder,
            connect=_Noted(remotes, security, sessions),
            hostname=name,
            clock=clock,
            on_managers=remotes.replace,
        )
        return SimulatedWorker(
            name=name, node_id=security.node_id, agent=agent, executor=executor, remotes=remotes, sessions=sessions
        )

    def back_after(self, moment: float) -> list[float]:
        """For each worker that has got a session since `moment`, how many seconds later the last one was, sorted."""
        last = [worker.sessions[-1] for worker in self.workers.values() if worker.sessions]
        return sorted(at - moment for at in last if at > moment)

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers.values()))


@contextlib.asynccontextmanager
async def agent_fleet(folder: Path) -> AsyncIterator[AgentFleet]:
    """A fleet without workers yet; they are stopped afterwards."""
    fleet = AgentFleet(folder)
    try:
        yield fleet
    finally:
        await fleet.stop()

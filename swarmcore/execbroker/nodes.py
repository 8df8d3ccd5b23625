"""The nodes that listen for requests, and the requests that are under way: of one term."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from swarmcore.api.exec_pb2 import TaskRequest
from swarmcore.errors import AbortedError, ResourceExhaustedError, UnavailableError
from swarmcore.execbroker.jobs import ExecJob, Job

MAX_JOBS: Final = 500
NO_LONGER: Final = "this manager no longer leads: ask again"

ENDED: Final = "the leading manager has changed, which ended the command"


class Listener:
    """One node's stream of requests."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.told: dict[str, Job] = {}
        self._news: dict[str, Job] = {}
        self._wake = asyncio.Event()
        self._failure: Exception | None = None

    def offer(self, job: Job) -> None:
        """There is something new of it: tell of it, or that it is over."""
        self._news[job.id] = job
        self._wake.set()

    def end(self, failure: Exception) -> None:
        self._failure = failure
        self._wake.set()

    async def requests(self) -> AsyncIterator[TaskRequest]:
        """What the node is asked, as it comes. Raises what `end` was given."""
        while True:
            while self._news and self._failure is None:
                id, job = self._news.popitem()
                wanted = job.wants(self.node_id)
                if wanted and id not in self.told:
                    self.told[id] = job
                    yield job.request(self.node_id)
                elif not wanted and self.told.pop(id, None) is not None:
                    yield TaskRequest(id=id, close=True)
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            await self._wake.wait()


class Nodes:
    """Made when this manager begins to lead, dropped when it ends."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}
        self._jobs: dict[str, Job] = {}
        self._came = asyncio.Event()

    @property
    def jobs(self) -> int:
        return len(self._jobs)

    def find(self, id: str) -> Job | None:
        return self._jobs.get(id)

    def listens(self, node_id: str) -> bool:
        return node_id in self._listeners

    async def wait_listening(self, node_id: str, seconds: float) -> bool:
        """Whether the node listens, or begins to within this time."""
        try:
            async with asyncio.timeout(seconds):
                while node_id not in self._listeners:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            return False
        return True

    @contextmanager
    def listen(self, node_id: str) -> Iterator[Listener]:
        """A node listens for the length of the block; a newer stream of it ends the older one."""
        older = self._listeners.get(node_id)
        if older is not None:
            older.end(AbortedError("a newer stream of the same node has taken over"))
            self._left(older)
        listener = self._listeners[node_id] = Listener(node_id)
        came, self._came = self._came, asyncio.Event()
        came.set()
        try:
            yield listener
        finally:
            if self._listeners.get(node_id) is listener:
                del self._listeners[node_id]
                self._left(listener)

    def _left(self, listener: Listener) -> None:
        for job in list(listener.told.values()):
            job.node_lost(listener.node_id, UnavailableError(f"node {listener.node_id} disconnected unexpectedly"))

    @contextmanager
    def running(self, job: Job, nodes: list[str]) -> Iterator[None]:
        """Nodes are asked for the length of the block. Raises ResourceExhaustedError."""
        if len(self._jobs) >= MAX_JOBS:
            raise ResourceExhaustedError(f"{MAX_JOBS} requests to nodes are under way: end some of them first")
        self._jobs[job.id] = job
        try:
            self._offer(job, nodes)
            yield
        finally:
            del self._jobs[job.id]
            job.close()
            self._offer(job, nodes)

    def _offer(self, job: Job, nodes: list[str]) -> None:
        for node_id in nodes:
            listener = self._listeners.get(node_id)
            if listener is not None:
                listener.offer(job)

    def stop(self) -> None:
        """The term is over: operators and nodes go to the next leader."""
        for listener in self._listeners.values():
            listener.end(UnavailableError(NO_LONGER))
        for job in self._jobs.values():
            job.close(UnavailableError(ENDED if isinstance(job, ExecJob) else NO_LONGER))

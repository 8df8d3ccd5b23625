"""Commands beside tasks and what tasks use, for operators who ask a manager: listens for requests, and serves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

import grpc
import grpc.aio

from swarmcore.agent.steps import text_of
from swarmcore.agent.usage import Sampler
from swarmcore.agent.worker import Worker
from swarmcore.api.exec_pb2 import (
    ExecEnd,
    ExecInput,
    ExecOutput,
    ExecStart,
    ListenRequestsRequest,
    NodeExecOutput,
    NodeStats,
    TaskRequest,
)
from swarmcore.api.exec_pb2_grpc import TaskAccessBrokerStub
from swarmcore.api.types_pb2 import TaskState
from swarmcore.clock import Clock
from swarmcore.plugin.executor import ExecOptions, ExecSession, ExecSource

log = logging.getLogger("swarmcore.agent")

START_SECONDS: Final = 30.0
END_SECONDS: Final = 10.0
MAX_REQUESTS: Final = 200
PIECE_BYTES: Final = 256 * 1024
"""Of output in one message; a manager takes no more than 1 MiB."""
LISTEN_AGAIN_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
CAN_NOT_RUN: Final = 126
NOT_SUPPORTED: Final = "not supported by this node"

_FAILURES: Final = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""The manager is gone, or the operator. `InvalidStateError` is gRPC's word for a write after the end."""


class AccessServer:
    """The requests of one session. A manager that knows none of this is a fact, not an error."""

    def __init__(
        self, channel: grpc.aio.Channel, worker: Worker, node_id: str, clock: Clock, on_stock: Callable[[], None]
    ) -> None:
        """`on_stock` is told that the manager is none of this kind."""
        self._on_stock = on_stock
        self._stub = TaskAccessBrokerStub(channel)
        self._worker = worker
        self._node_id = node_id
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._commands: set[str] = set()

    async def run(self) -> None:
        """Listen until cancelled. That requests can't be heard now ends no session: it is tried again.

        What is being served goes on meanwhile, and after this: until `finish`, or `aclose`.
        """
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await self._listen()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    self._on_stock()
                    await asyncio.Event().wait()
                log.debug("listening for requests ended: %s", error.details())
            # Commands end with their own calls; samples are asked for anew.
            await self._end(set(self._running) - self._commands)
            if self._clock.monotonic() - began > LISTEN_AGAIN_SECONDS[-1]:
                failures = 0
            pause = LISTEN_AGAIN_SECONDS[min(failures, len(LISTEN_AGAIN_SECONDS) - 1)]
            failures += 1
            await self._clock.sleep_until(self._clock.monotonic() + pause)

    @property
    def has_commands(self) -> bool:
        """Whether commands run that somebody waits for."""
        return bool(self._commands)

    async def finish(self) -> None:
        """Return when the commands have ended; all else ends now."""
        await self._end(set(self._running) - self._commands)
        while self._running:
            await asyncio.wait(self._running.values())

    async def aclose(self) -> None:
        """End everything."""
        await self._end(set(self._running))

    async def _end(self, ids: set[str]) -> None:
        running = [self._running[id] for id in ids]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _listen(self) -> None:
        call = self._stub.ListenRequests(ListenRequestsRequest())
        try:
            async for request in call:
                self._take(request)
        finally:
            call.cancel()

    def _take(self, request: TaskRequest) -> None:
        running = self._running.get(request.id)
        what = request.WhichOneof("what")
        if what == "close":
            if running is not None:
                running.cancel()
        elif running is None and len(self._running) < MAX_REQUESTS:
            if what == "exec":
                self._commands.add(request.id)
                self._begin(request.id, self._exec(request.id, request.exec))
            elif what == "stats":
                self._begin(request.id, self._stats(request))

    def _begin(self, id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"request {id}")
        self._running[id] = task
        task.add_done_callback(lambda done: self._forget(id, done))

    def _forget(self, id: str, done: asyncio.Task[None]) -> None:
        del self._running[id]
        self._commands.discard(id)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("serving request %s failed", id, exc_info=error)

    # A command

    async def _exec(self, id: str, start: ExecStart) -> None:
        """Run a command; it ends when the call does, whoever ends it."""
        call = self._stub.ServeExec()
        session: ExecSession | None = None
        feeding: asyncio.Task[None] | None = None
        try:
            # So that the manager knows that it is heard, however long the start takes.
            await call.write(NodeExecOutput(request_id=id))
            session, error = await self._start(start)
            if session is None:
                await self._say(call, ExecOutput(end=ExecEnd(code=CAN_NOT_RUN, error=error)))
                return
            await self._say(call, ExecOutput(started=True))
            feeding = asyncio.create_task(_feed(call, session), name=f"input of {id}")
            await self._say(call, ExecOutput(end=await self._pass_output(call, session)))
        except _FAILURES as failure:
            log.debug("command %s ended with its call: %s", id, failure)
        finally:
            call.cancel()
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            if session is not None:
                await _close(session)

    async def _start(self, start: ExecStart) -> tuple[ExecSession | None, str]:
        """The command, running, or why it does not."""
        manager = self._worker.managers.get(start.task_id)
        if manager is None or manager.is_removed or manager.status.state != TaskState.RUNNING:
            return None, f"task {start.task_id} does not run on this node any more"
        source = manager.controller
        if not isinstance(source, ExecSource):
            return None, f"{NOT_SUPPORTED}: the executor of the task runs no commands beside it"
        options = ExecOptions(
            command=list(start.command),
            env=list(start.env),
            dir=start.dir,
            user=start.user,
            tty=start.tty,
            stdin=start.stdin,
            rows=start.size.rows or 24,
            columns=start.size.columns or 80,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                return await source.exec(options), ""
        except TimeoutError:
            return None, f"the command did not start in {START_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - the border: an executor's fault costs this command
            return None, text_of(error)

    async def _pass_output(self, call: Any, session: ExecSession) -> ExecEnd:
        """Send what the command writes; return how it ended."""
        output = session.output()
        try:
            async for stream, data in output:
                for start in range(0, len(data), PIECE_BYTES):
                    piece = data[start : start + PIECE_BYTES]
                    await self._say(call, ExecOutput(stderr=piece) if stream == 2 else ExecOutput(stdout=piece))
            async with asyncio.timeout(END_SECONDS):
                return ExecEnd(code=await session.wait())
        except _FAILURES:
            raise
        except TimeoutError:
            return ExecEnd(code=CAN_NOT_RUN, error="the command closed its output and does not end")
        except Exception as error:  # noqa: BLE001 - the border: an executor's fault costs this command
            return ExecEnd(code=CAN_NOT_RUN, error=text_of(error))
        finally:
            if isinstance(output, AsyncGenerator):
                await output.aclose()

    @staticmethod
    async def _say(call: Any, output: ExecOutput) -> None:
        await call.write(NodeExecOutput(output=output))
        if output.HasField("end"):
            await call.done_writing()
            async with asyncio.timeout(END_SECONDS):
                await call.code()

    # What tasks use

    async def _stats(self, request: TaskRequest) -> None:
        start = request.stats
        sampler = Sampler(self._worker, self._node_id, list(start.task_ids))
        call = self._stub.ServeStats()
        try:
            first: NodeStats = await sampler.first()
            first.request_id = request.id
            await call.write(first)
            while not start.once:
                await asyncio.sleep(max(0.5, min(start.interval_seconds, 60.0)))
                await call.write(await sampler.next())
            await call.done_writing()
            await call
        except _FAILURES as failure:
            log.debug("stats %s ended with their call: %s", request.id, failure)
        finally:
            call.cancel()


async def _feed(call: Any, session: ExecSession) -> None:
    """Give the command what the operator sends. A call that ends before its command ends the command."""
    with contextlib.suppress(*_FAILURES):
        async for message in call:
            try:
                await _give(session, message)
            except Exception as error:  # noqa: BLE001 - the border: the command goes on without it
                log.debug("a command's input: %s", text_of(error))
    await _close(session)


async def _give(session: ExecSession, message: ExecInput) -> None:
    what = message.WhichOneof("what")
    if what == "stdin":
        await session.write(message.stdin)
    elif what == "stdin_closed":
        await session.close_input()
    elif what == "resize":
        await session.resize(message.resize.rows, message.resize.columns)
    elif what == "signal":
        await session.signal(message.signal)


async def _close(session: ExecSession) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            await session.aclose()
    except Exception as error:  # noqa: BLE001 - the border, as above
        log.warning("a command beside a task was not ended: %s", text_of(error))

"""The TaskAccess and TaskAccessBroker services, and their life as a component that runs while this manager leads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, Final

from grpc.aio import ServicerContext

from swarmcore.api.caller import Caller, current_caller
from swarmcore.api.exec_pb2 import (
    ExecEnd,
    ExecInput,
    ExecOutput,
    ExecStart,
    ListenRequestsRequest,
    NodeExecOutput,
    NodeStats,
    NodeStatsResponse,
    StatsRequest,
    StatsResponse,
    TaskRequest,
)
from swarmcore.api.exec_pb2_grpc import TaskAccessBrokerServicer, TaskAccessServicer
from swarmcore.api.ids import IdSource, new_id
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import (
    AbortedError,
    InvalidArgumentError,
    NotFoundError,
    NotLeaderError,
    PermissionDeniedError,
    SwarmError,
    UnavailableError,
)
from swarmcore.execbroker.audit import Audit, shown_command, shown_names
from swarmcore.execbroker.checks import NOT_SUPPORTED, check_start, is_ours, name_of, running_task, tasks_by_node
from swarmcore.execbroker.jobs import ExecJob, StatsJob
from swarmcore.execbroker.nodes import Nodes
from swarmcore.store.store import LeaderStore

Context = ServicerContext[Any, Any]

START_SECONDS: Final = 10.0
"""For an operator to say what to run, and for a node to take it up."""
LISTEN_SECONDS: Final = 3.0
"""For a node whose agent is just coming to a new leader."""
STATS_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 4.0
"""Between two looks at which tasks there are to be measured."""
MAX_INPUT_BYTES: Final = 1024 * 1024
MAX_OUTPUT_BYTES: Final = 1024 * 1024


class _Term:
    """What there is while this manager leads."""

    def __init__(self, store: LeaderStore) -> None:
        self.store = store
        self.nodes = Nodes()


class ExecBroker(TaskAccessServicer, TaskAccessBrokerServicer):
    """Brings operators together with the nodes of their tasks. Refuses calls while `run` is not active."""

    name: Final = "exec broker"

    def __init__(
        self,
        audit: Audit,
        *,
        clock: Clock | None = None,
        new_id: IdSource = new_id,
        caller: Callable[[], Caller] = current_caller,
    ) -> None:
        self._audit = audit
        self._clock = clock if clock is not None else SystemClock()
        self._new_id = new_id
        self._caller = caller
        self._term: _Term | None = None

    async def run(self, store: LeaderStore) -> None:
        """Serve while leading. Ends when cancelled; what is under way ends then."""
        term = self._term = _Term(store)
        try:
            await asyncio.Event().wait()
        finally:
            self._term = None
            term.nodes.stop()

    @property
    def jobs(self) -> int:
        """How many requests to nodes are under way."""
        return self._term.nodes.jobs if self._term is not None else 0

    def _running(self) -> _Term:
        if self._term is None:
            raise NotLeaderError("this manager does not lead: ask again")
        return self._term

    def _operator(self) -> Caller:
        """Who asks; the role table and the interceptor have let them in, and this does not rely on it."""
        caller = self._caller()
        if not (caller.is_local or caller.is_forwarded):
            raise PermissionDeniedError("only an operator at a manager's control socket may do this")
        return caller

    # Operators

    async def Exec(self, requests: AsyncIterator[ExecInput], context: Context) -> AsyncIterator[ExecOutput]:
        """Run a command beside a task: what it writes, and at last how it ended.

        It is killed when the operator leaves. Raises what keeps it from being run.
        """
        term = self._running()
        caller = self._operator()
        start = await _first(requests)
        check_start(start)
        facts: dict[str, object] = {
            "id": self._new_id(),
            "manager": caller.node_id,
            "says_user": start.said_user[:64],
            "task": start.task_id[:64],
            "command": shown_command(start.command),
        }
        try:
            task, node = running_task(term.store.view, start.task_id)
        except SwarmError as error:
            self._audit.record("exec.refused", **facts, error=str(error))
            raise
        facts |= {"service": task.service_id, "node": node.id}
        job = ExecJob(str(facts["id"]), node.id, name_of(node), start)
        self._audit.record(
            "exec.start",
            **facts,
            env=shown_names(start.env),
            user=start.user[:64],
            tty=start.tty,
            stdin=start.stdin,
        )
        began = self._clock.monotonic()
        outcome: dict[str, object] = {"error": "the operator left"}
        try:
            async with contextlib.aclosing(self._exec(term, job, name_of(node), requests)) as outputs:
                async for output in outputs:
                    if output.HasField("end"):
                        outcome = _outcome(output.end)
                    yield output
        except SwarmError as error:
            outcome = {"error": str(error)}
            raise
        finally:
            seconds = round(self._clock.monotonic() - began, 3)
            with contextlib.suppress(SwarmError):
                self._audit.record("exec.end", **facts, seconds=seconds, **outcome)

    async def _exec(
        self, term: _Term, job: ExecJob, node_name: str, requests: AsyncIterator[ExecInput]
    ) -> AsyncGenerator[ExecOutput, None]:
        if not await term.nodes.wait_listening(job.node_id, LISTEN_SECONDS):
            raise UnavailableError(
                f"node {node_name} is not connected to this cluster's leader, or is too old for this"
            )
        feeding: asyncio.Task[None] | None = None
        with term.nodes.running(job, [job.node_id]):
            try:
                try:
                    async with asyncio.timeout(START_SECONDS):
                        await job.attached.wait()
                except TimeoutError:
                    raise UnavailableError(f"node {node_name} did not take the command up") from None
                feeding = asyncio.create_task(_feed(job, requests), name=f"input of {job.id}")
                while (output := await job.to_operator.get()) is not None:
                    yield output
                    if output.HasField("end"):
                        return
                raise job.lost()
            finally:
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)

    async def Stats(self, request: StatsRequest, context: Context) -> AsyncIterator[StatsResponse]:
        """What the tasks use that run now, again and again, or `once`.

        Of services and of all, tasks that come later are among them within a few seconds.
        """
        self._operator()
        told: set[str] = set()
        wait_seconds = LISTEN_SECONDS
        while True:
            term = self._running()
            try:
                tasks, warnings = self._measurable(term, request)
            except NotFoundError:
                if wait_seconds == LISTEN_SECONDS:
                    raise
                return  # one that was named has been removed
            is_changed = None if request.once else partial(self._has_others, term, request, tasks)
            rounds = self._sample(term, tasks, request.once, wait_seconds, is_changed)
            if warnings - told:
                yield StatsResponse(warnings=sorted(warnings - told))
            told |= warnings
            async with contextlib.aclosing(rounds) as samples:
                async for sample in samples:
                    new = [each for each in sample.warnings if each not in told]
                    told.update(new)
                    if sample.stats or new:
                        yield StatsResponse(stats=sample.stats, warnings=new)
            if request.once:
                return
            wait_seconds = LOOK_SECONDS
            if not is_changed or not is_changed():
                await asyncio.sleep(LOOK_SECONDS)

    def _has_others(self, term: _Term, request: StatsRequest, tasks: dict[str, list[str]]) -> bool:
        try:
            return self._measurable(term, request)[0] != tasks
        except NotFoundError:
            return False  # one that was named is gone; the others go on

    def _measurable(self, term: _Term, request: StatsRequest) -> tuple[dict[str, list[str]], set[str]]:
        """The tasks that can be asked for, by node, and why others can't."""
        tasks = tasks_by_node(term.store.view, request)
        warnings: set[str] = set()
        for node_id in list(tasks):
            node = term.store.view.node.get(node_id)
            if node is None:
                del tasks[node_id]
            elif not is_ours(node):
                warnings.add(f"{NOT_SUPPORTED}: {name_of(node)} is a stock Docker Engine")
                del tasks[node_id]
        return tasks, warnings

    async def _sample(
        self,
        term: _Term,
        tasks: dict[str, list[str]],
        once: bool,
        wait_seconds: float,
        is_changed: Callable[[], bool] | None,
    ) -> AsyncGenerator[NodeStats, None]:
        """Samples of these tasks, until all nodes are done or there are other tasks to ask for."""
        if not tasks:
            return
        job = StatsJob(self._new_id(), tasks, once=once, interval_seconds=STATS_SECONDS)
        # Nodes that are just coming to a new leader are waited for together.
        there = await asyncio.gather(*(term.nodes.wait_listening(id, wait_seconds) for id in tasks))
        with term.nodes.running(job, list(tasks)):
            for node_id, listens in zip(list(tasks), there, strict=True):
                if not listens:
                    job.node_lost(node_id, UnavailableError(f"node {node_id} is not available"))
            look = time.monotonic() + LOOK_SECONDS
            while True:
                sample: NodeStats | None = NodeStats()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS if is_changed is not None else None):
                        sample = await job.samples.get()
                if sample is None:
                    return
                yield sample
                if is_changed is not None and time.monotonic() >= look:
                    if is_changed() or any(map(term.nodes.listens, job.lost)):
                        return
                    look = time.monotonic() + LOOK_SECONDS

    # Nodes

    async def ListenRequests(self, request: ListenRequestsRequest, context: Context) -> AsyncIterator[TaskRequest]:
        """What the calling node is to do, and what no longer."""
        term = self._running()
        with term.nodes.listen(self._caller().node_id) as listener:
            async for each in listener.requests():
                yield each

    async def ServeExec(self, requests: AsyncIterator[NodeExecOutput], context: Context) -> AsyncIterator[ExecInput]:
        """A node serves a command that it was asked for: it sends what the command writes, and gets its input."""
        term = self._running()
        node_id = self._caller().node_id
        try:
            async with asyncio.timeout(START_SECONDS):
                first = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            raise InvalidArgumentError("the request that is served is not named") from None
        job = term.nodes.find(first.request_id)
        if not isinstance(job, ExecJob) or not job.wants(node_id) or job.attached.is_set():
            raise NotFoundError("the request is over, or was never this node's")
        job.attached.set()
        taking = asyncio.create_task(_take(job, requests), name=f"output of {job.id}")
        try:
            while (message := await job.to_node.get()) is not None:
                yield message
            if not job.is_over:
                await taking
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            job.close(job.lost())

    async def ServeStats(self, requests: AsyncIterator[NodeStats], context: Context) -> NodeStatsResponse:
        """Samples of the calling node's tasks, for the request that the first message names."""
        term = self._running()
        node_id = self._caller().node_id
        job: StatsJob | None = None
        try:
            async for message in requests:
                if job is None:
                    found = term.nodes.find(message.request_id)
                    if not isinstance(found, StatsJob) or not found.wants(node_id):
                        raise NotFoundError("the request is over, or was never this node's")
                    job = found
                if job.is_over:
                    raise AbortedError("nobody reads this any more")
                if any(sample.node_id != node_id for sample in message.stats):
                    raise PermissionDeniedError("a node may tell of its own tasks only")
                await job.samples.put(message)
        finally:
            if job is not None:
                job.node_done(node_id)
        return NodeStatsResponse()


async def _first(requests: AsyncIterator[ExecInput]) -> ExecStart:
    """What an operator's first message asks for."""
    try:
        async with asyncio.timeout(START_SECONDS):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        raise InvalidArgumentError("exec: nothing was asked for") from None
    if not first.HasField("start"):
        raise InvalidArgumentError("exec: the first message has to say what to run")
    return first.start


async def _feed(job: ExecJob, requests: AsyncIterator[ExecInput]) -> None:
    """Pass the operator's input on. Its end closes the command's standard input, not the command."""
    async for message in requests:
        if message.HasField("start") or len(message.stdin) > MAX_INPUT_BYTES:
            job.close(InvalidArgumentError("exec: a second start, or more than 1 MiB of input at once"))
            return
        await job.to_node.put(message)
    await job.to_node.put(ExecInput(stdin_closed=True))


async def _take(job: ExecJob, requests: AsyncIterator[NodeExecOutput]) -> None:
    """Pass what the command writes on to the operator."""
    async for message in requests:
        if len(message.output.stdout) > MAX_OUTPUT_BYTES or len(message.output.stderr) > MAX_OUTPUT_BYTES:
            job.close(InvalidArgumentError(f"exec: the node sent more than {MAX_OUTPUT_BYTES} bytes at once"))
            return
        await job.to_operator.put(message.output)
        if message.output.HasField("end"):
            break
    job.to_node.close()
    job.to_operator.close()


def _outcome(end: ExecEnd) -> dict[str, object]:
    return {"exit_code": end.code, **({"error": end.error[:256]} if end.error else {})}

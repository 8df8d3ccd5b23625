"""Drives one task: one asyncio task that asks `steps` what is next and makes the calls of its Controller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from swarmcore.agent import steps
from swarmcore.agent.local_state import MAX_HANDLE_BYTES, TaskRecord
from swarmcore.agent.steps import Advance, Call, Delayed, Ended, Idle, Interrupted, Outcome, Succeeded, Verb
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.tasks import is_same_but_status
from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.clock import Clock
from swarmcore.plugin.executor import (
    ContainerStatuser,
    Controller,
    Dependencies,
    Executor,
    ExitError,
    PortStatuser,
    TemporaryError,
)

log = logging.getLogger("swarmcore.agent")

DEFAULT_GRACE_SECONDS: Final = 10.0
MAX_GENERIC_GRACE_SECONDS: Final = 3600.0
"""A generic runtime's grace period stands in its payload, which the core does not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that a call of an executor may take; `prepare`, `start` and `wait` may take any time."""

    short: float = 30.0
    """update, controller, recover, terminate, aclose."""
    status: float = 5.0
    """Container and port status."""
    remove: float = 120.0
    stop_margin: float = 30.0
    """Beyond the task's own grace period."""


T = TypeVar("T")


class Host(Protocol):
    """What a task manager needs of the worker it belongs to."""

    clock: Clock
    executors: Mapping[str, Executor]
    deadlines: Deadlines

    def dependencies_of(self, task: Task) -> Dependencies: ...

    async def wait_dependencies(self, task: Task) -> None:
        """Return when what the task refers to has arrived, or will not arrive any more."""
        ...

    def save(self, record: TaskRecord) -> None: ...

    async def flush(self) -> None: ...

    def report(self, task_id: str, status: TaskStatus) -> None: ...

    def on_closed(self, manager: TaskManager) -> None:
        """The task is no longer assigned, and everything that was made for it is removed."""
        ...


def runtime_of(task: Task) -> str:
    """The runtime that a task asks for: `container`, `attachment`, or the kind of a generic one."""
    runtime = task.spec.WhichOneof("runtime")
    if runtime == "generic":
        return task.spec.generic.kind
    return runtime or ""


def stop_grace(task: Task) -> float:
    """Seconds that the task may take to stop after it was told to."""
    if task.spec.HasField("generic"):
        return MAX_GENERIC_GRACE_SECONDS
    container = task.spec.container
    if not container.HasField("stop_grace_period"):
        return DEFAULT_GRACE_SECONDS
    period = container.stop_grace_period
    return max(0.0, period.seconds + period.nanos / 1e9)


async def attempt(call: Awaitable[T], deadline: float | None = None) -> tuple[T | None, Exception | None]:
    """Await a call of an executor; return its result, or what it raised. This is the border: its fault costs one task.

    A deadline that passes is a TimeoutError. Only the driver's own cancellation gets through: a call that was cancelled
    somewhere inside of the executor has failed like any other.
    """
    try:
        async with asyncio.timeout(deadline):
            return await call, None
    except asyncio.CancelledError:
        own = asyncio.current_task()
        if own is None or own.cancelling():
            raise
        return None, RuntimeError("the executor's own call was cancelled")
    except Exception as error:  # noqa: BLE001 - the border: an executor's fault costs one task
        return None, error


class TaskManager:
    """One task on this node, from the moment it is assigned until nothing of it is left."""

    def __init__(self, host: Host, record: TaskRecord, *, recovered: bool) -> None:
        """`recovered`: something may have been made for the task before, so it is looked for first."""
        self._host = host
        self._task = record.task
        self._status = record.status
        self._handle = record.handle
        self._is_removed = record.is_removed
        self._may_have_left = recovered
        self._newer: Task | None = None
        self._controller: Controller | None = None
        self._attempts = 0
        self._wake = asyncio.Event()
        self._scope: asyncio.Timeout | None = None
        """Around a call that may be interrupted."""
        self._verb: Verb | None = None
        self._driver: asyncio.Task[None] | None = None
        self.started = asyncio.Event()
        """Set when the task runs, or has run."""
        if record.status.state >= TaskState.RUNNING:
            self.started.set()
        self.resolved = asyncio.Event()
        """Set when the first look for the task's controller is over, whatever came of it."""

    @property
    def task(self) -> Task:
        """The task as last sent, without status."""
        return self._newer or self._task

    @property
    def status(self) -> TaskStatus:
        return self._status

    @property
    def controller(self) -> Controller | None:
        return self._controller

    @property
    def is_removed(self) -> bool:
        return self._is_removed

    def start(self) -> None:
        """Begin to drive. The driver is the manager's own task; it ends by `aclose` or when all is removed."""
        self._driver = asyncio.get_running_loop().create_task(self._run(), name=f"task {self._task.id}")

    # What the worker says

    def update(self, task: Task) -> None:
        """Take a newer version of the task. A lower desired state is ignored: managers only raise it."""
        known = self.task
        if task.desired_state < known.desired_state or is_same_but_status(known, task):
            return
        self._newer = task
        self._attempts = 0
        self._host.save(self._record())
        # What prepares or starts is left alone unless it is to end: it would only begin again.
        if self._verb is Verb.WAIT or (task.desired_state >= TaskState.SHUTDOWN and self._verb is not Verb.SHUTDOWN):
            self._interrupt()
        self._wake.set()

    def remove(self) -> None:
        """The task is no longer assigned: stop it, and remove what was made for it. Not waited for."""
        if self._is_removed:
            return
        self._is_removed = True
        self._attempts = 0
        self._host.save(self._record())
        if self._driver is not None and self._driver.done():
            self.start()
        if self._verb is not Verb.SHUTDOWN:
            self._interrupt()
        self._wake.set()

    def nudge(self) -> None:
        """Something that the task may wait for has changed: try again now."""
        if self._verb is None and self._attempts:
            self._interrupt()

    async def aclose(self) -> None:
        """End the driver. What runs goes on running."""
        if self._driver is not None:
            self._driver.cancel()
            _, alive = await asyncio.wait([self._driver], timeout=self._host.deadlines.status)
            if alive:
                log.warning("task %s: the executor does not let go of a call that was cancelled", self._task.id)
        await self._close_controller()

    # The driver

    async def _run(self) -> None:
        try:
            while not self._is_removed:
                await self._one_step()
            await self._remove_all()
        except asyncio.CancelledError:
            raise
        except Exception:
            # The border of the task supervisor: a bug here costs one task.
            log.exception("task %s: the agent's own code failed", self._task.id)
            if self._controller is not None:
                await attempt(self._controller.terminate(), self._host.deadlines.short)
            self._set(steps.failed(self._status, "internal error of the agent; its log says more", None, self._now()))
        finally:
            self.resolved.set()

    async def _one_step(self) -> None:
        if self._controller is None and not steps.is_final(self._status.state):
            if self._nothing_was_made() and self.task.desired_state >= TaskState.SHUTDOWN:
                self._set(steps.advanced(self._status, TaskState.SHUTDOWN, "shutdown", self._now()))
                return
            outcome = await self._resolve()
            self.resolved.set()
            if isinstance(outcome, Delayed):
                await self._delayed(Verb.PREPARE, outcome)
                return
            self._attempts = 0
            if isinstance(outcome, Ended):
                self._set(steps.unresolved(self._status, outcome.error, self._now()))
            return
        self.resolved.set()
        await self._take_update()
        step = steps.next_step(self._status.state, self._task.desired_state)
        if isinstance(step, Idle):
            if self._newer is None and not self._is_removed:
                await self._wake.wait()
            self._wake.clear()
        elif isinstance(step, Advance):
            self._set(steps.advanced(self._status, step.state, step.message, self._now()))
        else:
            await self._perform(step)

    def _nothing_was_made(self) -> bool:
        return self._status.state < TaskState.PREPARING and not self._may_have_left

    async def _take_update(self) -> None:
        if self._newer is None:
            return
        self._task, self._newer = self._newer, None
        if self._controller is None or steps.is_final(self._status.state):
            return
        _, error = await attempt(self._controller.update(self._task), self._host.deadlines.short)
        if error is not None:
            # What runs is not touched by an update, so it goes on; the next one may work.
            log.warning("task %s: taking an update failed: %s", self._task.id, steps.text_of(error))

    async def _perform(self, step: Call) -> None:
        controller = self._controller
        assert controller is not None
        verb = step.verb
        if verb is Verb.PREPARE:
            # A crash right after must find the task again, or what is made now would be nobody's.
            await self._host.flush()
            outcome = await self._interruptible(None, self._host.wait_dependencies(self._task))
            if not isinstance(outcome, Succeeded):
                return
        if verb is Verb.SHUTDOWN:
            outcome = await self._shutdown(controller)
        else:
            calls = {Verb.PREPARE: controller.prepare, Verb.START: controller.start, Verb.WAIT: controller.wait}
            outcome = await self._interruptible(verb, calls[verb]())
        if isinstance(outcome, Delayed):
            await self._delayed(verb, outcome)
            return
        if isinstance(outcome, Interrupted):
            return
        self._attempts = 0
        if isinstance(outcome, Ended) and outcome.exit_code is None and verb in (Verb.START, Verb.WAIT):
            # An error is no proof that nothing runs, and a replacement may be under way.
            await attempt(controller.terminate(), self._host.deadlines.short)
        new = steps.after(self._status, verb, outcome, self._now())
        self._set(await self._with_runtime_status(new, outcome))

    async def _delayed(self, verb: Verb, outcome: Delayed) -> None:
        self._attempts += 1
        if self._attempts == 1:
            log.info("task %s: %s; trying again", self._task.id, outcome.error)
        self._set(steps.after(self._status, verb, outcome, self._now()))
        delay = self._host.clock.monotonic() + steps.retry_delay(self._attempts)
        if self._newer is None and not self._is_removed:
            await self._interruptible(None, self._host.clock.sleep_until(delay))

    # Getting a controller

    async def _resolve(self) -> Outcome:
        runtime = runtime_of(self._task)
        executor = self._host.executors.get(runtime)
        if executor is None:
            return Ended(f"this node has no executor for runtime {runtime!r}")
        dependencies = self._host.dependencies_of(self._task)
        deadline = self._host.deadlines.short
        if self._may_have_left:
            call = executor.recover(self._task, self._handle, dependencies)
            self._controller, error = await attempt(call, deadline)
            if error is not None:
                return self._unresolved(error, "recover")
            if self._controller is None and self._status.state > TaskState.PREPARING:
                return Ended("nothing is left of the task: it was removed while the agent was away")
            self._may_have_left = False
        if self._controller is None:
            self._controller, error = await attempt(executor.controller(self._task, dependencies), deadline)
            if error is not None:
                return self._unresolved(error, "controller")
        if self._status.state < TaskState.ACCEPTED:
            self._set(steps.advanced(self._status, TaskState.ACCEPTED, "accepted", self._now()))
        return Succeeded()

    def _unresolved(self, error: Exception, method: str) -> Outcome:
        if isinstance(error, TimeoutError):
            error = TemporaryError(f"the executor did not answer {method!r} in time")
        return steps.outcome_of(Verb.PREPARE, error)

    # Calls

    async def _interruptible(self, verb: Verb | None, call: Awaitable[None]) -> Outcome:
        """Await a call that `update`, `remove` and `nudge` may interrupt."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scope, self._verb = scope, verb
                try:
                    _, error = await attempt(call)
                finally:
                    self._scope = self._verb = None
        except TimeoutError:
            return Interrupted()
        return steps.outcome_of(verb or Verb.PREPARE, error)

    def _interrupt(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.reschedule(asyncio.get_running_loop().time())

    async def _shutdown(self, controller: Controller) -> Outcome:
        """Stop; kill where stopping does not end in time or fails."""
        self._verb = Verb.SHUTDOWN
        try:
            deadlines = self._host.deadlines
            _, error = await attempt(controller.shutdown(), stop_grace(self._task) + deadlines.stop_margin)
            if error is None or isinstance(error, ExitError):
                # However what ran has ended: it was told to.
                return Succeeded()
            outcome = steps.outcome_of(Verb.SHUTDOWN, error)
            if isinstance(outcome, Delayed):
                return outcome
            _, failure = await attempt(controller.terminate(), deadlines.short)
            if isinstance(error, TimeoutError):
                if failure is None:
                    return Succeeded()
                return Delayed("the executor neither stops nor kills the task in time")
            return outcome
        finally:
            self._verb = None

    async def _with_runtime_status(self, status: TaskStatus, outcome: Outcome) -> TaskStatus:
        """From STARTING on: what the engine knows of the container and its ports (SwarmKit: 9.2)."""
        controller = self._controller
        if status is self._status or status.state < TaskState.STARTING or status.state == TaskState.REJECTED:
            return status
        new = TaskStatus()
        new.CopyFrom(status)
        seconds = self._host.deadlines.status
        if isinstance(controller, ContainerStatuser):
            found, _ = await attempt(controller.container_status(), seconds)
            if found is not None:
                new.container.CopyFrom(found)
                if isinstance(outcome, Ended) and outcome.exit_code is not None:
                    new.container.exit_code = status.container.exit_code
        if isinstance(controller, PortStatuser):
            ports, _ = await attempt(controller.port_status(), seconds)
            if ports is not None:
                new.port_status.CopyFrom(ports)
        return new

    # The end

    async def _remove_all(self) -> None:
        """Stop and remove, again and again where the engine is away: what was made must not stay for ever."""
        self.resolved.set()
        while (outcome := await self._try_to_remove()) is not None:
            self._attempts += 1
            if self._attempts == 1:
                log.info("task %s: removing what was made for it: %s; trying again", self._task.id, outcome)
            delay = self._host.clock.monotonic() + steps.retry_delay(self._attempts)
            await self._interruptible(None, self._host.clock.sleep_until(delay))
        await self._close_controller()
        self._host.on_closed(self)

    async def _try_to_remove(self) -> str | None:
        """Return why it has to be tried again, or None when it is over."""
        self._wake.clear()
        if self._controller is None and self._may_have_left:
            executor = self._host.executors.get(runtime_of(self._task))
            if executor is not None:
                call = executor.recover(self._task, self._handle, self._host.dependencies_of(self._task))
                self._controller, error = await attempt(call, self._host.deadlines.short)
                if error is not None:
                    outcome = self._unresolved(error, "recover")
                    if isinstance(outcome, Delayed):
                        return outcome.error
                    log.warning("task %s: can't be removed: %s", self._task.id, steps.text_of(error))
            self._may_have_left = False
        controller = self._controller
        if controller is None:
            return None
        if TaskState.STARTING <= self._status.state <= TaskState.RUNNING:
            stopped = await self._shutdown(controller)
            if isinstance(stopped, Delayed):
                return stopped.error
        _, failure = await attempt(controller.remove(), self._host.deadlines.remove)
        if failure is None:
            return None
        if isinstance(failure, TimeoutError):
            return "the executor did not finish in time"
        outcome = steps.outcome_of(Verb.SHUTDOWN, failure)
        if isinstance(outcome, Delayed):
            return outcome.error
        log.warning("task %s: removing what was made for it failed: %s", self._task.id, steps.text_of(failure))
        return None

    async def _close_controller(self) -> None:
        controller, self._controller = self._controller, None
        if controller is not None:
            _, error = await attempt(controller.aclose(), self._host.deadlines.short)
            if error is not None:
                log.warning("task %s: closing failed: %s", self._task.id, steps.text_of(error))

    # What is known

    def _set(self, status: TaskStatus) -> None:
        """Store and report a status; the handle is stored with it."""
        handle = self._controller.handle if self._controller is not None else self._handle
        if handle is not None and len(handle) > MAX_HANDLE_BYTES:
            log.warning("task %s: its executor's handle is longer than %d bytes", self._task.id, MAX_HANDLE_BYTES)
            handle = self._handle
        if status is self._status and handle == self._handle:
            return
        self._handle = handle
        self._status = status
        if status.state >= TaskState.RUNNING:
            self.started.set()
        self._host.save(self._record())
        self._host.report(self._task.id, status)

    def _record(self) -> TaskRecord:
        return TaskRecord(task=self.task, status=self._status, handle=self._handle, is_removed=self._is_removed)

    def _now(self) -> float:
        return self._host.clock.now()

"""One task as one process with its own session and process group, and a shell that waits for its exit code.

The shell is the process's parent, not the agent: it writes the exit code down whether there is an agent or not. All
that is known of the task lies in its folder:

    launch    what to run, made by `prepare`
    started   boot, process and supervisor, made by the launcher before it becomes the program
    error     why the program could not be run
    exit      the exit code, 128 + N for a process that signal N ended
    oom       made when the kernel killed any of it for want of memory
    healthy   made by the first health check that succeeds
    stdout, stderr, when they were how long (stdout.times, stderr.times), and work, the working folder or a link to it
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import ContainerStatus
from swarmcore.plugin.executor import (
    Controller,
    ExecOptions,
    ExecSession,
    ExecutorError,
    ExitError,
    LogLine,
    LogOptions,
    TaskRejectedError,
    TaskStartedError,
    TaskUsage,
    TemporaryError,
)
from swarmcore_process_executor import exec, folders, health, output, spec
from swarmcore_process_executor.cgroups import Cgroups
from swarmcore_process_executor.processes import Identity, kill_marked, reap, signal_group, wait_ended
from swarmcore_process_executor.record import FILES, Noter, Record
from swarmcore_process_executor.usage import usage_of

log = logging.getLogger("swarmcore.process-executor")

T = TypeVar("T")

LAUNCH_SECONDS: Final = 30.0
KILL_SECONDS: Final = 10.0
UNKNOWN_EXIT_CODE: Final = 255
_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EBUSY}
)
"""Errors of the system that may be over soon."""
_SUPERVISOR: Final = '"$@" & exec >/dev/null 2>&1; wait $!; echo $? >exit'

NO_CGROUPS: Final = Cgroups(places={})
_LAUNCHER: Final = Path(__file__).with_name("launcher.py")


class ProcessController(Controller):
    """Drives the process of one task."""

    def __init__(
        self, pool: ThreadPoolExecutor, noter: Noter, folder: Path, task: Task, cgroups: Cgroups = NO_CGROUPS
    ) -> None:
        """`folder` is the task's own, and need not exist yet."""
        self._pool = pool
        self._cgroups = cgroups
        self._folder = folder
        self._task = task
        self._spec = spec.parse(task)
        self._preparing: asyncio.Future[None] | None = None
        self._launching: asyncio.Future[bytes] | None = None
        self._noter = noter
        self._is_closed = False
        self._waits: set[asyncio.Future[None]] = set()
        """Each pending wait has one; an error in it ends the wait."""
        self._records = [Record(folder, stream) for stream in FILES]

    async def update(self, task: Task) -> None:
        """What runs goes on as it is; a changed grace period counts."""
        self._spec = spec.parse(task)
        self._task = task

    # Life

    async def prepare(self) -> None:
        await self._settled()
        # Not with the call: what makes folders must not go on beside the next call, or after `remove`.
        self._preparing = asyncio.ensure_future(self._blocking(self._prepare))
        self._preparing.add_done_callback(_take_note)
        await asyncio.shield(self._preparing)

    async def start(self) -> None:
        check = health.parse(self._spec.health)
        if self._launching is None and check is not None and self._is_getting_healthy():
            await self._wait_healthy(check)
            return
        await self._start()
        if check is not None:
            await self._wait_healthy(check)

    async def _start(self) -> None:
        if self._preparing is not None and not self._preparing.done():
            await asyncio.wait([self._preparing])
        if self._launching is None:
            self._raise_refusal()
            if self._started() is not None:
                raise TaskStartedError("the process was started before")
            # Not with the call: one that is cancelled must not leave a process that nobody knows.
            self._launching = asyncio.ensure_future(self._blocking(self._launch))
        launching = self._launching
        try:
            said = await asyncio.shield(launching)
        finally:
            # A launch that is still under way is joined by the next call; one that failed is not asked again.
            if launching.done():
                self._launching = None
        if said == b"already started":
            raise TaskStartedError("the process was started before")
        self._raise_refusal(os.fsdecode(said))
        if self._started() is None:
            raise TemporaryError("the process did not come up")
        self._note()

    async def wait(self) -> None:
        started = self._started()
        if started is not None:
            process, supervisor = started
            await self._watch(supervisor, self._monitor())
            await self._blocking(lambda: reap(supervisor))
            if self._exit_code() is None:
                # The supervisor was killed, but what it started goes on by itself.
                await self._watch(process)
            await self._kill_rest()
            await self._blocking(self._leave_groups)
        code = self._exit_code()
        if code is None:
            raise ExitError(UNKNOWN_EXIT_CODE, "its exit code is unknown: its supervisor was killed, or the machine")
        if code:
            raise ExitError(code, "out of memory" if (self._folder / "oom").exists() else "")

    def _raise_refusal(self, said: str = "") -> None:
        """Raise what kept the program from running, if anything did: now, or in a launch whose agent was killed."""
        error = self._read("error") or said
        if error:
            raise TaskRejectedError(error if error.startswith("process.") else f"process.command: {error}")

    def _is_getting_healthy(self) -> bool:
        """Whether it runs, and no check of it has succeeded yet."""
        started = self._started()
        return started is not None and started[0].is_alive() and not (self._folder / "healthy").exists()

    async def _wait_healthy(self, check: health.Check) -> None:
        """Return when the process is healthy, or has ended: that is for `wait` to tell."""
        started = self._started()
        if started is None:
            return
        asking = asyncio.ensure_future(health.Health(check, self.exec).wait_healthy())
        watching = asyncio.ensure_future(self._watch(started[1]))
        try:
            await asyncio.wait([asking, watching], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
                return
            is_healthy = await asking
        finally:
            asking.cancel()
            watching.cancel()
            await asyncio.wait([asking, watching])
        if not is_healthy:
            await self._stop_unhealthy()
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "healthy").touch()

    def _monitor(self) -> Awaitable[None] | None:
        """What returns when a process that was healthy is that no more; None where nobody asks."""
        check = health.parse(self._spec.health)
        return health.Health(check, self.exec).wait_unhealthy() if check is not None else None

    async def _stop_unhealthy(self) -> None:
        await self.shutdown()
        raise ExitError(1, "unhealthy process")

    async def shutdown(self) -> None:
        await self._settled()
        started = self._started()
        if started is not None and signal_group(started[0], spec.stop_signal(self._spec)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(spec.grace_seconds(self._spec)):
                    await self._both_ended(*started)
        await self.terminate()

    async def terminate(self) -> None:
        await self._settled()
        started = self._started()
        if started is None:
            return
        signal_group(started[0], signal.SIGKILL)
        await self._kill_rest()
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await self._both_ended(*started)
        except TimeoutError:
            raise TemporaryError(f"process {started[0].pid} does not end after SIGKILL") from None

    async def remove(self) -> None:
        await self.terminate()
        for record in self._records:
            self._noter.discard(record)
        await self._blocking(lambda: self._cgroups.remove(self._task.id))
        await self._blocking(lambda: folders.remove_folders(self._folder, self._task.id))
        left = folders.left_of(self._folder, self._task.id)
        if left is not None:
            raise TemporaryError(f"the folder {str(left)!r} can't be removed")

    async def aclose(self) -> None:
        """Waits end with a TemporaryError; a launch that may be under way ends by itself."""
        self._is_closed = True
        for record in self._records:
            self._noter.discard(record)
        for waiting in self._waits:
            if not waiting.done():
                waiting.set_exception(TemporaryError("the executor or its controller was closed"))
        await self._settled()

    async def container_status(self) -> ContainerStatus | None:
        started = self._started()
        if started is None:
            return None
        return ContainerStatus(pid=started[0].pid, exit_code=self._exit_code() or 0)

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        return output.lines(self._records, options, self._is_over)

    async def exec(self, options: ExecOptions) -> ExecSession:
        """Run a command with the task's user, groups, limits, environment and folder."""
        started = self._started()
        if started is None:
            raise ExecutorError("the task has no process yet")
        return await exec.start(self._pool, started[0], options)

    async def usage(self) -> TaskUsage:
        """Of the task's process and all that it started."""
        return await self._blocking(lambda: usage_of(self._task.id, self._task.spec.resources.limits.memory_bytes))

    # Steps that block, on a thread of the pool

    def _prepare(self) -> None:
        if self._started() is not None:
            return
        try:
            user = spec.user_of(self._spec)
            work = folders.make_work(self._folder, self._task.id, user)
            launch = spec.resolve(self._task, self._spec, user, work, self._cgroups)
            new = self._folder / "launch.new"
            new.write_bytes(launch.encode())
            new.replace(self._folder / "launch")
        except BaseException:
            # A task that is rejected has nothing, and one that is tried again makes it anew.
            folders.remove_folders(self._folder, self._task.id)
            raise

    def _launch(self) -> bytes:
        """Start supervisor and launcher; return what the launcher says, which is nothing when the program runs."""
        with self._cgroups.held() as hold:
            self._cgroups.make(self._task.id, spec.limits_of(self._task, self._spec))
            return self._launch_in_groups(hold)

    def _launch_in_groups(self, hold: int | None) -> bytes:
        """`hold` is the launcher's standard error until it is in the groups: we may be killed before."""
        read_end, write_end = os.pipe()
        try:
            try:
                supervisor = subprocess.Popen(
                    ["/bin/sh", "-c", _SUPERVISOR, "swarmcore-process", sys.executable, "-I", "-S", str(_LAUNCHER)],
                    cwd=self._folder,
                    env={"PATH": spec.DEFAULT_PATH},
                    stdin=subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=subprocess.DEVNULL if hold is None else hold,
                    start_new_session=True,
                )
            finally:
                os.close(write_end)
            # It outlives this object, and is waited for by its pid.
            supervisor.returncode = 0
            if not select.select([read_end], [], [], LAUNCH_SECONDS)[0]:
                # The next try makes a supervisor of its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(supervisor.pid, signal.SIGKILL)
                os.waitpid(supervisor.pid, 0)
                raise TemporaryError(f"the process did not start in {LAUNCH_SECONDS:g} s")
            return os.read(read_end, 4096)
        finally:
            os.close(read_end)

    async def _blocking(self, work: Callable[[], T]) -> T:
        """Run on a thread. Errors of the system become the task's end, or a reason to try again."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            text = f"{error.strerror or error}" + (f": {error.filename!r}" if error.filename else "")
            if error.errno in _PASSING:
                raise TemporaryError(text) from error
            raise TaskRejectedError(text) from error

    # Waiting

    async def _settled(self) -> None:
        """Return when neither folders are being made nor a launch is under way."""
        for under_way in (self._preparing, self._launching):
            if under_way is not None and not under_way.done():
                await asyncio.wait([under_way])

    async def _both_ended(self, process: Identity, supervisor: Identity) -> None:
        await self._unless_closed(wait_ended(process))
        await self._unless_closed(wait_ended(supervisor))
        reap(supervisor)

    async def _watch(self, process: Identity, monitor: Awaitable[None] | None = None) -> None:
        """Return when the process has ended, and stop it when `monitor` returns. What it prints is noted meanwhile."""
        self._note()
        ended = wait_ended(process)
        if await self._unless_closed(*([ended] if monitor is None else [ended, monitor])):
            await self._stop_unhealthy()
        for record in self._records:
            self._noter.discard(record)

    async def _unless_closed(self, *waits: Awaitable[None]) -> int:
        """Return when one of these does: its number. Raises TemporaryError when this is closed."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits.add(closed)
        calls = [asyncio.ensure_future(each) for each in waits]
        try:
            if self._is_closed:
                raise TemporaryError("the executor or its controller was closed")
            await asyncio.wait([*calls, closed], return_when=asyncio.FIRST_COMPLETED)
            for number, call in enumerate(calls):
                if call.done():
                    call.result()
                    return number
            await closed
            raise AssertionError("closed without a reason")
        finally:
            self._waits.discard(closed)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            if not closed.cancel() and not closed.cancelled():
                closed.exception()

    def _note(self) -> None:
        for record in self._records:
            self._noter.add(record)

    async def _kill_rest(self) -> None:
        """What a task leaves behind in other groups or sessions ends with it."""
        killed = await self._blocking(lambda: kill_marked(self._task.id, self._in_cgroups))
        if killed:
            log.info("task %s: killed %d process%s", self._task.id, killed, "es" if killed != 1 else "")

    def _leave_groups(self) -> None:
        """Nothing runs in them any more; what they alone know is written down."""
        if self._cgroups.was_out_of_memory(self._task.id):
            with contextlib.suppress(OSError):
                (self._folder / "oom").touch()
        with contextlib.suppress(OSError):
            self._cgroups.remove(self._task.id)

    def _in_cgroups(self) -> set[int]:
        return self._cgroups.pids(self._task.id)

    # What the folder says

    def _is_over(self) -> bool:
        """Whether nothing more is printed, or nobody has to tell of it."""
        started = self._started()
        if self._is_closed or self._noter.is_closed or not self._folder.exists():
            return True
        return self._exit_code() is not None or (started is not None and not started[0].is_alive())

    def is_there(self) -> bool:
        """Whether anything was made for the task."""
        return folders.left_of(self._folder, self._task.id) is not None

    def _started(self) -> tuple[Identity, Identity] | None:
        """Process and supervisor, once there are any."""
        text = self._read("started")
        if text is None:
            return None
        boot, process, supervisor = text.splitlines()[:3]
        return _identity(boot, process), _identity(boot, supervisor)

    def _exit_code(self) -> int | None:
        text = self._read("exit")
        # Empty: the supervisor is just about to write it, or could not.
        return int(text) if text and text.strip().isdigit() else None

    def _read(self, name: str) -> str | None:
        try:
            return (self._folder / name).read_text(errors="surrogateescape")
        except FileNotFoundError:
            return None


def _take_note(preparing: asyncio.Future[None]) -> None:
    """The error was for whoever waited; nobody may have."""
    if not preparing.cancelled():
        preparing.exception()


def _identity(boot: str, text: str) -> Identity:
    pid, started = text.split()
    return Identity(int(pid), int(started), boot)

"""Executors: how a node runs tasks. An executor turns a task into a Controller; the core owns the state machine.

Expected ends are typed. `TaskPreparedError` and `TaskStartedError` mean that the step had been done before and count
as success; `TaskRejectedError` and `ExitError` end the task; `TemporaryError` asks for the same step again. Any other
exception ends the task (REJECTED before STARTING, FAILED from there on), never the agent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from swarmcore.api.objects_pb2 import Config, Node, Secret, Task
from swarmcore.api.types_pb2 import ContainerStatus, NodeDescription, PortStatus
from swarmcore.errors import SwarmError


class ExecutorError(SwarmError):
    """The root of what executors raise on purpose."""


class TaskPreparedError(ExecutorError):
    """`prepare` was done before; the core goes on as if it had just succeeded."""


class TaskStartedError(ExecutorError):
    """`start` was done before; the core goes on as if it had just succeeded."""


class TaskRejectedError(ExecutorError):
    """The task can never run here. The text says which field, or the engine's words."""


class TemporaryError(ExecutorError):
    """The step failed for now (engine away, registry busy). The core shows the text and tries again."""


class ExitError(ExecutorError):
    """What the task ran ended with `code` other than 0, or was found unhealthy."""

    def __init__(self, code: int, cause: str = "") -> None:
        super().__init__(f"task: non-zero exit ({code})" + (f": {cause}" if cause else ""))
        self.code = code
        self.cause = cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What a task may read, resolved by id: only what its own spec references."""

    secrets: Mapping[str, Secret] = field(default_factory=dict)
    configs: Mapping[str, Config] = field(default_factory=dict)


class Controller(ABC):
    """One task on one engine. Every method may be called again; all but `wait` return within their own deadlines.

    Cancelling a method leaves things so that calling it again goes on from there.
    """

    handle: bytes | None = None
    """Opaque; the agent stores it with the task after each step and hands it to `Executor.recover`. Under 64 KiB."""

    @abstractmethod
    async def update(self, task: Task) -> None:
        """Take a newer version of the task. Never touches what already runs."""

    @abstractmethod
    async def prepare(self) -> None:
        """Make all that `start` needs: image, volumes, container. Nothing runs yet."""

    @abstractmethod
    async def start(self) -> None:
        """Start it, and return when it runs and, with a health check, is healthy."""

    @abstractmethod
    async def wait(self) -> None:
        """Return when it ended with exit code 0; raise ExitError for any other end."""

    @abstractmethod
    async def shutdown(self) -> None:
        """Stop it gracefully within the spec's grace period (default 10 s), then kill. Idempotent."""

    @abstractmethod
    async def terminate(self) -> None:
        """Kill it now. Idempotent."""

    @abstractmethod
    async def remove(self) -> None:
        """Remove everything that was made for it. Idempotent, in every state."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release what this object holds (pending calls end); what runs goes on running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """What the core tells an executor about its node when it is made."""

    state_dir: str
    """A folder of the executor's own, absolute, mode 0700; it exists."""
    engine_addr: str = ""
    """The operator's `--engine-addr`, or empty."""
    generic_resources: str = ""
    """The operator's `--generic-node-resources` as typed."""


class Executor(ABC):
    """An engine that runs tasks on this node."""

    @abstractmethod
    async def describe(self) -> NodeDescription:
        """What the node can offer, asked every 20 s. Raises TemporaryError when the engine does not answer."""

    @abstractmethod
    async def configure(self, node: Node) -> None:
        """Take the node object as the managers see it. Called at each change of it."""

    @abstractmethod
    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        """Make the Controller of a task. Raises TaskRejectedError for a spec that this engine can't honour."""

    @abstractmethod
    async def recover(self, task: Task, handle: bytes | None, dependencies: Dependencies) -> Controller | None:
        """Re-attach to what still runs for `task` after the agent restarted; None where nothing is left of it."""

    @abstractmethod
    async def aclose(self) -> None:
        """End pending calls and close connections. What runs goes on running."""


class ExecutorFactory(Protocol):
    """Offered by `swarmcore_executors`. Cheap to make; connects to nothing until `create`."""

    name: str
    """Capability `executor/<name>`, and what `--executor` names."""
    runtimes: frozenset[str]
    """Task runtimes it runs: `container`, or kinds of generic runtimes such as `process`."""
    automatic: int
    """`--executor auto` takes the lowest positive number that is available; 0 is never taken by itself."""

    async def available(self, host: HostInfo) -> bool:
        """Whether the engine answers here, within 2 s. A missing engine is a fact, not an error."""
        ...

    async def create(self, host: HostInfo) -> Executor:
        """Connect. Raises ConfigurationError in one line that says what to do."""
        ...


@runtime_checkable
class ContainerStatuser(Protocol):
    """Optional ability of a Controller: what the engine knows of the container."""

    async def container_status(self) -> ContainerStatus | None: ...


@runtime_checkable
class PortStatuser(Protocol):
    """Optional ability of a Controller: the ports as published on the host."""

    async def port_status(self) -> PortStatus | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A piece of output as the task wrote it."""

    stream: int
    """1 stdout, 2 stderr."""
    timestamp_ns: int
    """When it was written. The same, however often the line is read; within a stream never falling."""
    data: bytes
    """With its end of line where it has one; a piece of a line that is longer than 64 KiB or not finished has none."""
    attrs: Mapping[str, str] = field(default_factory=dict)
    """What the engine's log driver says besides, for `--details`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Which lines."""

    follow: bool = False
    tail: int | None = None
    """Number of last lines; None for all."""
    since_ns: int | None = None
    streams: frozenset[int] = frozenset({1, 2})


@runtime_checkable
class LogSource(Protocol):
    """Optional ability of a Controller: what the task printed."""

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """The lines that there are, in order; with `follow` those that come, until the task has ended.

        May be called many times at once. Holds no file, thread or connection once it is closed, and does not read
        ahead without a bound: whoever iterates sets the pace.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """A command to run beside a task: in its environment, as its user, under its limits."""

    command: Sequence[str]
    env: Sequence[str] = ()
    """NAME=VALUE, besides the task's own."""
    dir: str = ""
    """Empty: the task's."""
    user: str = ""
    """Empty: the task's."""
    tty: bool = False
    """On a terminal of its own; then everything it writes is on stream 1."""
    stdin: bool = False
    """Whether it has a standard input."""
    rows: int = 24
    columns: int = 80


class ExecSession(ABC):
    """A command that runs. Its owner reads `output` to the end, then asks `wait`, and closes it whatever happens."""

    @abstractmethod
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of what it writes, by stream (1 stdout, 2 stderr), until it has ended. Reads on as it is iterated."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """To its standard input; waits until it is taken. What it no longer reads is dropped."""

    @abstractmethod
    async def close_input(self) -> None:
        """Its standard input has ended. Idempotent."""

    @abstractmethod
    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has this size now; nothing where it has none."""

    @abstractmethod
    async def signal(self, name: str) -> None:
        """Signal it, by a name such as SIGINT; nothing where it has ended. Raises ExecutorError where that can't be."""

    @abstractmethod
    async def wait(self) -> int:
        """Its exit code, 128 + N where signal N ended it, once it has ended."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it if it runs, and release everything. Idempotent."""


@runtime_checkable
class ExecSource(Protocol):
    """Optional ability of a Controller: run a command beside the task."""

    async def exec(self, options: ExecOptions) -> ExecSession:
        """Start it. Raises ExecutorError in one line where it can't be: no such program, no such user, not running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUsage:
    """What a task uses. None: not known."""

    cpu_seconds: float | None = None
    """User and system time so far. The core makes percentages of two of these."""
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    """0: none."""
    network_received_bytes: int | None = None
    network_sent_bytes: int | None = None
    block_read_bytes: int | None = None
    block_written_bytes: int | None = None
    pids: int | None = None


@runtime_checkable
class UsageSource(Protocol):
    """Optional ability of a Controller: what the task uses."""

    async def usage(self) -> TaskUsage:
        """As of now, within a second or two. Raises ExecutorError where it can't be told."""
        ...

"""The agent: takes up the tasks of the last run, then keeps a session with a manager for as long as the node lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, NoReturn

from swarmcore.agent.connections import Connection, Connections
from swarmcore.agent.description import Describer
from swarmcore.agent.reporter import Reporter
from swarmcore.agent.session import RegisterAgainError, Session, SessionError
from swarmcore.agent.steps import text_of
from swarmcore.agent.task_manager import Deadlines
from swarmcore.agent.worker import Worker
from swarmcore.api.dispatcher_pb2 import SessionMessage
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.types_pb2 import GenericResource, NodeDescription, NodeTLSInfo, WeightedPeer
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import NodeRemovedError, SwarmError
from swarmcore.plugin.executor import Executor

log = logging.getLogger("swarmcore.agent")

DESCRIBE_EVERY_SECONDS: Final = 20.0
UNKNOWN_ENGINE_SECONDS: Final = 2.0
CONFIGURE_SECONDS: Final = 15.0
FIRST_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 8.0
LEAVE_SECONDS: Final = 300.0
REMOVED: Final = "was removed from"
"""In what managers say to a node that is no member any more; also in SwarmKit's words."""


def next_backoff(backoff: float) -> float:
    """Seconds after one more session that failed (SwarmKit: 8.7)."""
    return min(FIRST_BACKOFF_SECONDS + 2 * backoff, MAX_BACKOFF_SECONDS)


class Agent:
    """Runs the tasks that managers assign to this node, by the executors that it is given.

    The executors stay the caller's: close them after `run` has ended.
    """

    def __init__(
        self,
        *,
        node_id: str,
        executors: Mapping[str, Executor],
        state_dir: Path,
        connect: Connections,
        hostname: str = "",
        clock: Clock | None = None,
        generic_resources: Sequence[GenericResource] = (),
        on_node_change: Callable[[Node], None] = lambda node: None,
        on_root_ca: Callable[[bytes], None] = lambda pem: None,
        on_managers: Callable[[Sequence[WeightedPeer]], None] = lambda managers: None,
        tls_info: Callable[[], NodeTLSInfo] = NodeTLSInfo,
        deadlines: Deadlines | None = None,
        rng: Random | None = None,
        is_removed: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`executors` by runtime. Callbacks are called on the loop: the node object when more than its status or
        meta changed, root certificates when they differ from `tls_info().trust_root`, managers at each message.

        `is_removed` makes sure of it, when a manager says that the node was removed: then `run` stops all tasks, and
        raises NodeRemovedError.
        """
        self._node_id = node_id
        self._state_dir = state_dir
        self._executors = executors
        self._connect = connect
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._rng = rng if rng is not None else Random()
        self._on_node_change = on_node_change
        self._on_root_ca = on_root_ca
        self._on_managers = on_managers
        self._tls_info = tls_info
        self._is_removed = is_removed
        self._reporter = Reporter()
        self._worker = Worker(
            executors=executors,
            folder=state_dir / "worker",
            reporter=self._reporter,
            clock=self._clock,
            deadlines=deadlines,
        )
        self._describer = Describer(
            executors,
            hostname=hostname,
            generic=generic_resources,
            tls_info=tls_info,
            on_return=self._worker.nudge,
        )
        self._session_id = ""
        self._node: Node | None = None
        self._ready = asyncio.Event()
        self._refresh = asyncio.Event()
        self._last_failure = ""
        self._finishing: set[asyncio.Task[None]] = set()
        """Earlier sessions whose commands still run."""

    @property
    def is_ready(self) -> bool:
        """Whether a manager has given this node a session."""
        return self._ready.is_set()

    @property
    def worker(self) -> Worker:
        return self._worker

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def refresh(self) -> None:
        """Ask the executors and the TLS settings now whether the node's description changed."""
        self._refresh.set()

    async def run(self) -> None:
        """Serve until cancelled; tasks go on running then. Raises ConfigurationError for a folder of no use.

        Raises NodeRemovedError when the node was removed from its cluster, and its tasks have ended.
        """
        await self._worker.start()
        try:
            await self._first_description()
            await self._keep_session()
        finally:
            for finishing in self._finishing:
                finishing.cancel()
            await asyncio.gather(*self._finishing, return_exceptions=True)
            await self._worker.aclose()

    async def leave(self) -> None:
        """Stop and remove every task of this node; return when nothing is left of them. `run` goes on meanwhile."""
        await self._worker.leave()

    async def _first_description(self) -> None:
        """A node that can't say what it runs would be given what it can't run: wait for an engine."""
        await self._describer.describe()
        while not self._describer.is_known:
            await self._clock.sleep_until(self._clock.monotonic() + UNKNOWN_ENGINE_SECONDS)
            await self._describer.describe()

    async def _keep_session(self) -> None:
        backoff = 0.0
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + self._rng.random() * backoff)
            registered = asyncio.Event()
            try:
                await self._one_session(registered)
            except RegisterAgainError as error:
                log.info("%s: registering again", error)
                backoff = 0.0
            except (SwarmError, OSError) as error:
                self._say(error, was_registered=registered.is_set())
                if REMOVED in text_of(error) and self._is_removed is not None and await self._is_removed():
                    await self._end()
                backoff = next_backoff(0.0 if registered.is_set() else backoff)

    async def _end(self) -> NoReturn:
        log.warning("the leader says so too: stopping the tasks of this node")
        left = "its tasks are stopped"
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._worker.leave()
        except TimeoutError:
            left = f"and some of its tasks have not stopped within {LEAVE_SECONDS:g} s"
        raise NodeRemovedError(
            f"this node was removed from the cluster; {left}: to let it join again, remove {str(self._state_dir)!r} "
            "and name a manager to join"
        )

    async def _one_session(self, registered: asyncio.Event) -> None:
        connection = await self._connect.open()
        session = Session(
            connection.channel,
            worker=self._worker,
            reporter=self._reporter,
            clock=self._clock,
            node_id=self._node_id,
            on_message=self._take_message,
            on_stock=lambda: self._stock_manager(connection),
        )
        try:
            description = self._describer.current()
            await session.register(description, self._session_id)
            self._registered(connection, session)
            registered.set()
            await session.run(self._watch_description(description))
        except RegisterAgainError:
            if session.access.has_commands:
                # Nothing failed: those who wait for commands go on waiting, over the connection that they have.
                finishing = asyncio.create_task(_finish(session, connection), name="commands of an earlier session")
                self._finishing.add(finishing)
                finishing.add_done_callback(self._finishing.discard)
                raise
            await _end(session, connection)
            raise
        except BaseException as error:
            if isinstance(error, SessionError):
                connection.failed()
            await _end(session, connection)
            raise

    @staticmethod
    def _stock_manager(connection: Connection) -> None:
        if connection.is_stock():
            raise RegisterAgainError("the managers are SwarmKit's, which take no pings")

    def _registered(self, connection: Connection, session: Session) -> None:
        connection.succeeded()
        if session.id != self._session_id:
            log.info("registered with %s", connection.peer)
        self._session_id = session.id
        self._last_failure = ""
        self._ready.set()

    def _say(self, error: Exception, *, was_registered: bool) -> None:
        """Log a failure once, however often it comes again."""
        text = text_of(error)
        if text != self._last_failure:
            what = "lost the manager" if was_registered else "no manager takes this node now"
            if REMOVED in text and self._is_removed is not None:
                then = "asking the leader whether that is so"
            else:
                then = "trying again"
            log.warning("%s: %s; %s", what, text, then)
        self._last_failure = text

    async def _watch_description(self, registered: NodeDescription) -> None:
        while True:
            self._refresh.clear()
            if await self._describer.describe() != registered:
                raise RegisterAgainError("the node's description changed")
            await self._pause(UNKNOWN_ENGINE_SECONDS if self._describer.is_away else DESCRIBE_EVERY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait, or until `refresh` is called."""
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._sleep(seconds))
            asked = group.create_task(self._refresh.wait())
            await asyncio.wait([timer, asked], return_when=asyncio.FIRST_COMPLETED)
            timer.cancel()
            asked.cancel()

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + seconds)

    # What managers say

    async def _take_message(self, message: SessionMessage) -> None:
        self._on_managers(list(message.managers))
        if message.RootCA and message.RootCA != self._tls_info().trust_root:
            self._on_root_ca(message.RootCA)
        if not message.HasField("node"):
            return
        node = Node()
        node.CopyFrom(message.node)
        node.ClearField("status")
        node.ClearField("meta")
        if node == self._node:
            return
        self._node = node
        await self._configure(message.node)
        whole = Node()
        whole.CopyFrom(message.node)
        self._on_node_change(whole)

    async def _configure(self, node: Node) -> None:
        for executor in {id(each): each for each in self._executors.values()}.values():
            try:
                async with asyncio.timeout(CONFIGURE_SECONDS):
                    await executor.configure(node)
            except Exception as error:  # noqa: BLE001 - the border: an executor's fault must not cost the session
                log.warning("an executor did not take the node's settings: %s", text_of(error))


async def _finish(session: Session, connection: Connection) -> None:
    """Keep a session's connection until its commands have ended."""
    session.close()
    try:
        await session.access.finish()
    finally:
        await _end(session, connection)


async def _end(session: Session, connection: Connection) -> None:
    session.close()
    try:
        await session.access.aclose()
    finally:
        await connection.aclose()

"""A node put together: who it is, what it runs, and the manager beside the agent where it is one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import grpc

from swarmcore.agent.agent import Agent
from swarmcore.agent.connections import Connections, RemoteConnections
from swarmcore.agent.remotes import DEFAULT_OBSERVATION, RemotePeer, Remotes
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.renewal import Renewer
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import ConfigurationError, UnavailableError
from swarmcore.manager.manager import Manager, ManagerConfig
from swarmcore.manager.metrics import node_metrics
from swarmcore.node import addresses
from swarmcore.node import executors as node_executors
from swarmcore.node.config import NodeConfig
from swarmcore.node.connections import OwnManagerConnections
from swarmcore.node.listeners import address_of, bind_tcp, bind_unix, serve_control, serve_remote
from swarmcore.node.outcast import CertificateWay, RemovedManagerError
from swarmcore.node.pages import Pages, stacks
from swarmcore.node.removal import Removal
from swarmcore.node.restoring import finish_restore, restore
from swarmcore.node.state_dir import StateDir
from swarmcore.node.unlocking import find_secret, remove_log
from swarmcore.plugin.executor import Executor
from swarmcore.plugin.loader import load
from swarmcore.plugin.lock import PluginLock
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.together import run_together

log = logging.getLogger("swarmcore.node")

GC_THRESHOLDS = (5_000, 5, 2_000)
"""Store objects live long and form no cycles, and a full collection of 50 000 of them stops the loop for 45 ms: so that
is rare. What RPCs leave behind is cyclic, and 30 000 objects of that take 40 ms: so that is often and little."""


async def run(config: NodeConfig, *, opened: Callable[[Manager], None] = lambda manager: None) -> None:
    """Run a node until cancelled. Raises SwarmError in one line for what keeps it from starting or going on.

    `opened` is told of each manager that the node has opened, before it runs: for who measures it in this process.
    """
    state = StateDir(config.state_dir)
    # Before the store fills: what was imported never goes, and full collections meanwhile would find nothing either.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        await _Node(config, SystemClock(), opened).run()
    finally:
        state.close()


class _Node:
    def __init__(self, config: NodeConfig, clock: Clock, opened: Callable[[Manager], None]) -> None:
        self._config = config
        self._clock = clock
        self._opened = opened
        self._hostname = config.hostname or socket.gethostname()
        self._manager: Manager | None = None
        self._raft = config.state_dir / "raft"
        self._is_forced = config.force_new_cluster

    async def run(self) -> None:
        await asyncio.to_thread(self._maybe_restore)
        config = self._config
        security = await self._identity()
        plugins = self._plugins(_word(security.role))
        executors = await node_executors.create(
            plugins, config.executors, state_dir=config.state_dir, engine_addr=config.engine_addr
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._serve_pages(stack, security)
                was_removed = False
                while True:
                    role = security.role
                    work = (
                        self._run_manager(security, plugins, executors)
                        if role == NodeRole.MANAGER and not was_removed
                        else self._run_worker(security, executors)
                    )
                    try:
                        await run_together(work, _until_another_role(security, role))
                    except RemovedManagerError as error:
                        log.warning("%s: as a worker it stops its tasks and ends", error)
                        was_removed = True
                        continue
                    log.info("this node is a %s from now on", _word(security.role))
                    plugins = self._plugins(_word(security.role))
                    if security.role != NodeRole.MANAGER:
                        # Out of the group for good: its id is never used again, and its keys must not lie about.
                        await asyncio.to_thread(remove_log, self._raft)
        finally:
            for executor in {id(each): each for each in executors.values()}.values():
                await executor.aclose()

    def _maybe_restore(self) -> None:
        config = self._config
        finish_restore(config.state_dir)
        if config.restore is not None:
            node_executors.check_names(self._plugins("worker"), config.executors)
            address = addresses.advertised(config.listen_remote_api, config.advertise_remote_api)
            unlock_key = restore(
                config.state_dir, config.restore, config.passphrase, address=address, now=self._clock.now()
            )
            if config.unlock_key is None:
                # Whoever has the passphrase has this key too.
                self._config = replace(config, unlock_key=unlock_key)

    async def _identity(self) -> SecurityConfig:
        """The identity on disk, or the one that a manager gives, or a new cluster's."""
        config = self._config
        folder = config.state_dir / "certificates"
        security = SecurityConfig.load(
            folder, self._clock, find_secret=lambda pem: find_secret(self._raft, config.unlock_key, pem)
        )
        if security is not None and security.role == NodeRole.WORKER:
            # What a kill kept from being removed when it was demoted.
            remove_log(self._raft)
        if config.force_new_cluster and (security is None or security.role != NodeRole.MANAGER):
            raise ConfigurationError(
                f"--force-new-cluster needs the state of a manager, and {str(config.state_dir)!r} holds none: "
                "give it the directory of one, or start from a backup with --restore"
            )
        if security is not None and config.autolock:
            log.warning("--autolock is for a new cluster: here, use swarmctl cluster update default --autolock")
        if security is None:
            # Before anything is written, here or on a manager.
            node_executors.check_names(self._plugins("worker"), config.executors)
        if security is None and config.join_addr:
            log.info("joining the cluster of the manager at %s", config.join_addr)
            methods = self._plugins("worker").join_methods
            security = await SecurityConfig.join(
                folder, config.join_addr, config.join_token, join_methods=methods, clock=self._clock
            )
        if security is None:
            security = SecurityConfig.create_cluster(folder, self._clock)
            log.info("started cluster %s", security.cluster_id)
        log.info("node %s is a %s", security.node_id, _word(security.role))
        return security

    def _plugins(self, role: str) -> PluginSet:
        path = self._config.state_dir / "plugins.lock"
        lock = PluginLock.read(path) if path.exists() else None
        return load(role=role, lock=lock, state_dir=str(self._config.state_dir))

    async def _serve_pages(self, stack: contextlib.AsyncExitStack, security: SecurityConfig) -> None:
        """Metrics and debugging, where the operator asks for them."""

        async def metrics() -> str:
            is_manager = security.role == NodeRole.MANAGER
            text = node_metrics(node_id=security.node_id, cluster_id=security.cluster_id, is_manager=is_manager)
            return text + (await self._manager.metrics() if self._manager is not None else "")

        for flag, listen, pages in (
            ("--listen-metrics", self._config.listen_metrics, {"/metrics": metrics}),
            ("--listen-debug", self._config.listen_debug, {"/debug/tasks": stacks}),
        ):
            if listen:
                bound = bind_tcp(listen, flag)
                served = Pages(pages)
                await served.listen(bound)
                stack.push_async_callback(served.aclose)
                log.info("serving %s on http://%s", " ".join(pages), address_of(bound))

    # As a manager

    async def _run_manager(
        self, security: SecurityConfig, plugins: PluginSet, executors: Mapping[str, Executor]
    ) -> None:
        config = self._config
        # Before anything is opened or written: what is taken by another process is found out at once.
        with contextlib.closing(bind_tcp(config.listen_remote_api)) as port:
            control = bind_unix(config.listen_control_api)
            own_file = _file(config.listen_control_api)
            try:
                await self._run_manager_on(port, control, security, plugins, executors)
            finally:
                if own_file is not None and _file(config.listen_control_api) == own_file:
                    config.listen_control_api.unlink(missing_ok=True)
                control.close()

    async def _run_manager_on(
        self,
        port: socket.socket,
        control: socket.socket,
        security: SecurityConfig,
        plugins: PluginSet,
        executors: Mapping[str, Executor],
    ) -> None:
        config = self._config
        address = addresses.advertised(address_of(port), config.advertise_remote_api)
        remotes = self._remotes()
        manager = await Manager.open(
            config=ManagerConfig(
                state_dir=config.state_dir,
                address=address,
                join=[peer.addr for peer in remotes.weights if peer.addr != address],
                hostname=self._hostname,
                force_new_cluster=self._is_forced,
                acceptance=config.accept,
                autolock=config.autolock,
                unlock_key=config.unlock_key,
                heartbeat_tick=config.heartbeat_tick,
                election_tick=config.election_tick,
            ),
            security=security,
            plugins=lambda: plugins,
            clock=self._clock,
        )
        self._manager, self._is_forced = manager, False
        self._opened(manager)
        running = asyncio.create_task(manager.run(), name="manager")
        serving = asyncio.create_task(
            self._serve(manager, port, control, security, executors, address, remotes), name="serving"
        )
        try:
            done, _ = await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._manager = None
            # Leadership first, while the others' answers still come in; then the servers, and the log last.
            if not running.done():
                await manager.hand_over()
            await _end(serving)
            await _end(running)
            await manager.aclose()

    async def _serve(
        self,
        manager: Manager,
        port: socket.socket,
        control_socket: socket.socket,
        security: SecurityConfig,
        executors: Mapping[str, Executor],
        address: str,
        remotes: Remotes,
    ) -> None:
        way = CertificateWay(manager, security, self._config.listen_control_api, remotes)
        renewer = Renewer(security, open_channel=way.open_channel, clock=self._clock)
        # Also while there is no leader: a manager that was demoted while it was away finds none.
        await run_together(
            renewer.run(),
            way.notice(renewer, self._clock, Removal(security, way.pick, self._clock).is_sure),
            self._serve_with(manager, port, control_socket, security, executors, address, remotes, way, renewer),
        )

    async def _serve_with(
        self,
        manager: Manager,
        port: socket.socket,
        control_socket: socket.socket,
        security: SecurityConfig,
        executors: Mapping[str, Executor],
        address: str,
        remotes: Remotes,
        way: CertificateWay,
        renewer: Renewer,
    ) -> None:
        config = self._config
        async with contextlib.AsyncExitStack() as stack:
            remote = await serve_remote(
                listen=port,
                security=security,
                store=manager.store,
                services=manager.remote_services,
                clock=self._clock,
                forward=manager.proxy,
                check_raft=manager.check_raft,
            )
            stack.push_async_callback(remote.aclose)
            # A manager that joins catches up through the port that it has just opened.
            await manager.wait_ready()
            control = await serve_control(
                path=config.listen_control_api,
                security=security,
                services=manager.control_services,
                bound=control_socket,
                forward=manager.proxy,
                address=address,
            )
            stack.push_async_callback(control.aclose)
            log.info("other nodes are told to come to %s", addresses.described(address, config.advertise_remote_api))

            way.is_serving = True
            connect = OwnManagerConnections(config.listen_control_api)
            await self._run_agent(security, executors, connect, renewer, remotes)

    # As a worker

    async def _run_worker(self, security: SecurityConfig, executors: Mapping[str, Executor]) -> None:
        config = self._config
        remotes = self._remotes()
        if not remotes.weights:
            raise ConfigurationError(
                f"no manager is known in {str(config.state_dir)!r}: name one with --join-addr host:port"
            )

        async def open_channel() -> grpc.aio.Channel:
            peer = remotes.select()
            if peer is None:
                raise UnavailableError("no manager is known")
            return security.open_channel(peer.addr)

        renewer = Renewer(security, open_channel=open_channel, clock=self._clock)
        connect = RemoteConnections(remotes, security.open_watched_channel, dial_stock=security.open_channel)
        await run_together(renewer.run(), self._run_agent(security, executors, connect, renewer, remotes))

    # Both

    def _remotes(self) -> Remotes:
        """The managers that were known last, and the one that the operator names."""
        config = self._config
        remotes = Remotes(config.state_dir / "state.json")
        remotes.load()
        if config.join_addr and all(peer.addr != config.join_addr for peer in remotes.weights):
            remotes.observe(RemotePeer("", config.join_addr), DEFAULT_OBSERVATION)
        return remotes

    async def _run_agent(
        self,
        security: SecurityConfig,
        executors: Mapping[str, Executor],
        connect: Connections,
        renewer: Renewer,
        remotes: Remotes,
    ) -> None:
        def take_root(pem: bytes) -> None:
            try:
                security.install_root(pem)
            except ConfigurationError as error:
                log.warning("a manager sent a root certificate that this node can't use: %s", error)

        agent = Agent(
            node_id=security.node_id,
            executors=executors,
            state_dir=self._config.state_dir,
            connect=connect,
            hostname=self._hostname,
            clock=self._clock,
            generic_resources=self._config.generic_resources,
            on_node_change=renewer.node_changed,
            on_root_ca=take_root,
            on_managers=remotes.replace,
            tls_info=security.tls_info,
            is_removed=Removal(security, remotes.pick, self._clock).is_sure,
        )

        async def say_ready() -> None:
            await agent.wait_ready()
            log.info("node is ready")
            # Not a full collection: of 100 000 tasks that takes 0.2 s, and what cycles there are by now are young.
            gc.collect(1)
            gc.freeze()
            await asyncio.Event().wait()

        async def follow_certificate() -> None:
            serial = security.serial
            while True:
                serial = await security.wait_change(serial)
                agent.refresh()

        await run_together(agent.run(), say_ready(), follow_certificate())


def _word(role: NodeRole.ValueType) -> str:
    return NodeRole.Name(role).lower()


async def _until_another_role(security: SecurityConfig, role: NodeRole.ValueType) -> None:
    """Return once a renewed certificate gives another role than this one."""
    while security.role == role:
        await security.wait_change(security.serial)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is at `path`, if any. An inode's number is given out again, so it takes its time too."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns

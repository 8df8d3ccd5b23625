"""A manager put together: its store and log, what it serves, and what it runs while it leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swarmcore.allocator.allocator import Allocator
from swarmcore.api.backup_pb2_grpc import add_BackupServicer_to_server
from swarmcore.api.ca_pb2_grpc import add_CAServicer_to_server, add_NodeCAServicer_to_server
from swarmcore.api.caller import Caller, current_caller
from swarmcore.api.control_pb2_grpc import add_ControlServicer_to_server
from swarmcore.api.dispatcher_pb2_grpc import add_DispatcherServicer_to_server
from swarmcore.api.exec_pb2_grpc import add_TaskAccessBrokerServicer_to_server, add_TaskAccessServicer_to_server
from swarmcore.api.health_pb2_grpc import add_HealthServicer_to_server
from swarmcore.api.logbroker_pb2_grpc import add_LogBrokerServicer_to_server, add_LogsServicer_to_server
from swarmcore.api.plugins_pb2_grpc import add_PluginsServicer_to_server
from swarmcore.api.raft_pb2_grpc import add_RaftServicer_to_server
from swarmcore.api.types_pb2 import Peer, WeightedPeer
from swarmcore.api.watch_pb2_grpc import add_WatchServicer_to_server
from swarmcore.ca.acceptance import AcceptRuleLike
from swarmcore.ca.cluster_ops import CAClusterOps
from swarmcore.ca.notice import is_signed
from swarmcore.ca.root import RootCA
from swarmcore.ca.security import SecurityConfig
from swarmcore.ca.server import CertificateAuthority
from swarmcore.clock import Clock, SystemClock
from swarmcore.controlapi.control import ControlService
from swarmcore.controlapi.health import HealthService
from swarmcore.controlapi.plugins import PluginsService
from swarmcore.controlapi.watch import WatchService
from swarmcore.dispatcher.dispatcher import Dispatcher
from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.execbroker.audit import AuditLog
from swarmcore.execbroker.broker import ExecBroker
from swarmcore.logbroker.broker import LogBroker
from swarmcore.manager.backup import BackupService
from swarmcore.manager.bootstrap import Founder, ensure_cluster
from swarmcore.manager.forcing import check_others_are_gone
from swarmcore.manager.former_members import FormerMembers
from swarmcore.manager.joining import join_group, keep_address_known, reachable_address
from swarmcore.manager.leader_proxy import LeaderProxy
from swarmcore.manager.leading import LeaderComponent, lead
from swarmcore.manager.locking import Locking
from swarmcore.manager.loop_guard import LoopGuard
from swarmcore.manager.metrics import fitness_metrics, manager_metrics
from swarmcore.manager.role_manager import RoleManager
from swarmcore.orchestrator import components
from swarmcore.orchestrator.dirty import is_dirty
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.replication.damage import what_to_do
from swarmcore.replication.groups import check_group
from swarmcore.replication.replica import Replica
from swarmcore.replication.service import RaftService
from swarmcore.replication.state_folder import has_state, read_membership
from swarmcore.replication.transport import Transport
from swarmcore.scheduler.scheduler import Scheduler
from swarmcore.store.store import LeaderStore, Store
from swarmcore.together import run_together

log = logging.getLogger("swarmcore.manager")

Service = tuple[Callable[[Any, Any], None], Any]
"""A generated `add_…Servicer_to_server`, and the servicer."""

MANAGER_WEIGHT = 10
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """What a manager needs to know besides who it is."""

    state_dir: Path
    address: str
    """`host:port` that other nodes are told."""
    hostname: str
    acceptance: Sequence[AcceptRuleLike] = ()
    join: Sequence[str] = ()
    """Managers, one of which lets this one into the group the first time; empty for a founder."""
    force_new_cluster: bool = False
    """Make a new group of this manager alone, with the data that it has."""
    autolock: bool = False
    """Of a cluster that this manager starts."""
    unlock_key: bytes | None = field(default=None, repr=False)
    heartbeat_tick: int = 1
    election_tick: int = 10


class Manager:
    """Open it, serve its services, run it, close it."""

    def __init__(
        self,
        *,
        config: ManagerConfig,
        security: SecurityConfig,
        plugins: Callable[[], PluginSet],
        store: Store,
        replica: Replica,
        transport: Transport,
        clock: Clock,
    ) -> None:
        self.store = store
        self._transport = transport
        self.proxy = LeaderProxy(replica, security, clock)
        """The way to the leader, for the servers."""
        self._raft = RaftService(
            replica,
            reachable_address,
            lambda notice: is_signed(notice, security.cluster_id, security.root.certificates),
        )
        self._config = config
        self._security = security
        self._replica = replica
        self._clock = clock
        self._guard = LoopGuard(replica.election_seconds)
        self._founder = _founder(config, security)
        self._health = HealthService()
        self._ca = CertificateAuthority(
            store,
            security=security,
            plugins=plugins,
            clock=clock,
            acceptance=config.acceptance,
        )
        self._dispatcher = Dispatcher(lambda _: self._caller(), self._peers, security.node_id, clock)
        self._logs = LogBroker(clock=clock)
        self._exec = ExecBroker(AuditLog(config.state_dir / "audit.log"), clock=clock)
        self._watch = WatchService(store)
        self._control = ControlService(
            store,
            members=replica.members,
            cluster_ops=CAClusterOps(),
            clock=clock,
            is_dirty=is_dirty,
        )
        self._plugins = PluginsService(plugins, security.node_id, config.hostname)
        self._backup = BackupService(store, replica, security.cluster_id, clock.now)
        self._components: list[LeaderComponent] = [
            self._ca,
            # Before the dispatcher: agents ask for these as soon as they have a session.
            self._logs,
            self._exec,
            self._dispatcher,
            *components(plugins=plugins, clock=clock),
            Allocator(clock=clock),
            Scheduler(plugins=plugins, clock=clock),
            RoleManager(replica, clock),
            FormerMembers(replica, security.cluster_id, security.open_anonymous_channel, clock),
        ]

    @classmethod
    async def open(
        cls,
        *,
        config: ManagerConfig,
        security: SecurityConfig,
        plugins: Callable[[], PluginSet],
        clock: Clock | None = None,
    ) -> Manager:
        """Read the log and the snapshot; join the group first where there are none yet.

        Raises DamagedStateError and ConfigurationError in one line.
        """
        clock = clock or SystemClock()
        store = Store(clock=clock.now)
        folder = config.state_dir / "raft"
        # The root's key is on this disk only until the cluster that it founds is in the log.
        is_founder = security.root_with_key is not None
        joined_as, introduced, group = None, {}, ""
        # A new log is locked as the cluster says from its first byte on: no other unlock key would be of use.
        is_given = has_state(folder) or (is_founder and config.autolock)
        unlock_key = config.unlock_key if is_given else security.secret
        if config.force_new_cluster:
            known = await asyncio.to_thread(read_membership, folder, security.node_id, config.unlock_key)
            others = [each.address for each in known.members.values() if each.node_id != security.node_id]
            await check_others_are_gone(list(dict.fromkeys((*others, *config.join))), security.open_channel)
        elif config.join and not is_founder and not has_state(folder):
            answer = await join_group(config.join, config.address, security.open_channel, clock)
            joined_as, group = answer.raft_id, answer.group
            introduced = {member.raft_id: member.addr for member in answer.members}
        transport = Transport(security.open_watched_channel, introduced)
        replica = await Replica.open(
            folder=folder,
            store=store,
            node_id=security.node_id,
            address=config.address,
            unlock_key=unlock_key,
            bootstrap=is_founder,
            joined_as=joined_as,
            joined_group=group,
            force_new_group=config.force_new_cluster,
            clock=clock,
            heartbeat_tick=config.heartbeat_tick,
            election_tick=config.election_tick,
            send=transport.send,
        )
        try:
            return cls._opened(config, security, plugins, store, replica, transport, clock)
        except BaseException:
            await replica.aclose()
            raise

    @classmethod
    def _opened(
        cls,
        config: ManagerConfig,
        security: SecurityConfig,
        plugins: Callable[[], PluginSet],
        store: Store,
        replica: Replica,
        transport: Transport,
        clock: Clock,
    ) -> Manager:
        try:
            security.seal_key(replica.keys.identity_keys[0])
        except ConfigurationError as error:
            log.warning("the private key of this manager can't be locked until it is renewed: %s", error)
        store.connect(replica)
        for rule in config.acceptance:
            if rule.policy not in plugins().acceptance:
                log.error(
                    "--accept %s: %s; nobody joins by it until then",
                    rule.policy,
                    plugins().why_unavailable(f"acceptance/{rule.policy}"),
                )
        return cls(
            config=config,
            security=security,
            plugins=plugins,
            store=store,
            replica=replica,
            transport=transport,
            clock=clock,
        )

    @property
    def remote_services(self) -> Sequence[Service]:
        """What other nodes may call; the role table says who."""
        return [*self._services, (add_RaftServicer_to_server, self._raft)]

    @property
    def control_services(self) -> Sequence[Service]:
        """What this machine's operator, and this node's own agent, may call."""
        return [*self._services, (add_BackupServicer_to_server, self._backup)]

    @property
    def _services(self) -> Sequence[Service]:
        return [
            (add_CAServicer_to_server, self._ca),
            (add_NodeCAServicer_to_server, self._ca),
            (add_DispatcherServicer_to_server, self._dispatcher),
            (add_ControlServicer_to_server, self._control),
            (add_LogsServicer_to_server, self._logs),
            (add_LogBrokerServicer_to_server, self._logs),
            (add_TaskAccessServicer_to_server, self._exec),
            (add_TaskAccessBrokerServicer_to_server, self._exec),
            (add_WatchServicer_to_server, self._watch),
            (add_HealthServicer_to_server, self._health),
            (add_PluginsServicer_to_server, self._plugins),
        ]

    async def run(self) -> None:
        """Keep the log, write, and lead where this manager is the leader. Ends when cancelled, or with the failure."""
        await run_together(
            self._guard.run(),
            self._replica.run(),
            self.store.run(),
            lead(self._replica, self.store, self._components, self._prepare),
            self._transport.run(self._replica),
            self.proxy.run(),
            self._watch.run(self.proxy.leaderless_seconds, self._clock),
            keep_address_known(self._replica, self._config.address, self._security.open_channel, self._clock),
            Locking(self.store, self._replica, self._security, self._clock).run(),
        )

    async def wait_ready(self) -> None:
        """Return when a leader is known, and this node is in the store: it can answer, or pass on, any call."""
        with self.store.subscribe(("cluster", "node")) as changes:
            while self._security.node_id not in self.store.view.node:
                await changes.get()
        while not self._replica.term and self._replica.leader is None:
            await self._clock.sleep_until(self._clock.monotonic() + LOOK_SECONDS)
        self._health.set_serving("Raft", True)
        self._health.set_serving("ControlAPI", True)

    def check_raft(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Refuse a manager that belongs to another group of this cluster, whatever the store says of it."""
        check_group(metadata, self._replica.membership, self._replica.group)

    @property
    def replica(self) -> Replica:
        """Its part in the group: who belongs to it, and what is agreed."""
        return self._replica

    @property
    def refusals(self) -> int:
        """How often another manager said that it takes nothing from this one, as from one that is none any more."""
        return self._transport.refusals

    @property
    def was_removed(self) -> bool:
        """Whether the log says that this manager left the group."""
        return self._replica.membership.was_removed(self._replica.raft_id)

    @property
    def leader_address(self) -> str:
        """Where another manager leads; empty while this one does, or nobody is known to."""
        leader = self._replica.leader
        return leader.address if leader is not None and leader.id != self._replica.raft_id else ""

    async def hand_over(self) -> None:
        """Before a stop: let another manager lead, where there is one."""
        if await self._replica.hand_over():
            log.info("another manager leads now")

    async def metrics(self) -> str:
        """What this manager tells Prometheus."""
        replica = self._replica
        return await manager_metrics(self.store.view, is_leader=bool(replica.term)) + fitness_metrics(
            replica.write_times, is_fit=not replica.why_unfit, loop_blocks=self._guard.blocks
        )

    async def aclose(self) -> None:
        """Close the log. What was acknowledged is on the disk already."""
        await self.proxy.aclose()
        await self._replica.aclose()

    async def _prepare(self, store: LeaderStore) -> None:
        founder = self._founder
        if founder.root_key is None and store.view.cluster.get(founder.cluster_id) is None:
            raise DamagedStateError(
                f"the log in {str(self._config.state_dir / 'raft')!r} has no cluster and its root key is gone: "
                f"{what_to_do(self._config.state_dir)}"
            )
        await store.update(lambda tx: ensure_cluster(tx, founder))
        if self._security.root_with_key is not None:
            self._security.forget_root_key()
            self._founder = replace(founder, root_key=None)
        if self._security.is_expired:
            cluster = store.view.cluster.get(founder.cluster_id)
            assert cluster is not None
            self._security.renew_locally(RootCA(cluster.root_ca.ca_cert, cluster.root_ca.ca_key))

    def _caller(self) -> Caller:
        caller = current_caller()
        # The own agent comes through the control socket, which knows no address.
        return (
            replace(caller, remote_addr=self._config.address) if caller.is_local and not caller.remote_addr else caller
        )

    def _peers(self) -> Sequence[WeightedPeer]:
        return [
            WeightedPeer(peer=Peer(node_id=member.node_id, addr=member.address), weight=MANAGER_WEIGHT)
            for member in self._replica.members()
        ]


def _founder(config: ManagerConfig, security: SecurityConfig) -> Founder:
    root = security.root_with_key
    return Founder(
        node_id=security.node_id,
        cluster_id=security.cluster_id,
        certificate=security.material.chain_pem,
        root_certificate=security.root.certificate_pem,
        root_key=root.key_pem if root is not None else None,
        root_digest=security.root.digest,
        autolock=config.autolock,
        unlock_key=config.unlock_key,
        heartbeat_tick=config.heartbeat_tick,
        election_tick=config.election_tick,
    )

"""One manager of the simulated group: the real replica and the real store, started, killed and started again.

Simulated is only the thin shell. The disk thread is `process.SimulatedDisk`. What carries messages between managers is
`Network`, and so receiving them is here: a message goes straight into the machine, the content of a snapshot first
into the real snapshot file. A member that joins begins with the files that are made here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, cast

from swarmcore.errors import AbortedError, SwarmError
from swarmcore.raft.effects import Accept, Announce, Apply, Effect, Persist, Refuse, Restore, Role, TakeBack
from swarmcore.raft.events import Event, MemberGone, MemberUnreachable, Received, SnapshotSent, SnapshotTaken
from swarmcore.raft.machine import Raft
from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import InstallSnapshot, Message
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState
from swarmcore.replication.durable import replace_file
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import DiskFailedError, LogFile
from swarmcore.replication.replica import Replica
from swarmcore.replication.snapshot_file import SnapshotReader, snapshot_path
from swarmcore.replication.snapshots import Limits
from swarmcore.replication.state_folder import KEY_FILE, MEMBER_FILE
from swarmcore.store.store import Store
from swarmcore.store.tables import Table
from swarmcore.testing.simulation.files import Files, PowerCut, SimulatedPath
from swarmcore.testing.simulation.invariants import DIGEST_EVERY
from swarmcore.testing.simulation.process import PROCESS, MemberClock, Process

if TYPE_CHECKING:
    from swarmcore.testing.simulation.group import Group

FOLDER = "/raft"
_PIECE_SECONDS = 0.02
_TICK_SECONDS = 0.1


class WatchedReplica(Replica):
    """The real one, whose steps are seen."""

    member: Member

    @property
    def raft(self) -> Raft:
        return self._raft

    def demand(self, event: Event) -> Accept | Refuse | None:
        """Give the machine an event; the answer, where the event gets one."""
        return self._step(event)

    def _step(self, event: Event) -> Accept | Refuse | None:
        if isinstance(event, SnapshotTaken):
            self.member.group.invariants.snapshot(self.member.id, event.snapshot)
        return super()._step(event)

    def _carry_out(self, effect: Effect) -> None:
        self.member.sees(self._raft, effect)
        super()._carry_out(effect)

    async def open_own_snapshot(self, index: int) -> SnapshotReader:
        """The file of an own snapshot. Raises OSError when it is gone."""
        path = snapshot_path(self._folder, index)
        return await self._snapshots.disk.submit(lambda: SnapshotReader(path, self._keys))


class WatchedStore(Store):
    """The real one, whose states are compared."""

    member: Member

    def apply(self, index: int, data: bytes, token: object | None = None) -> None:
        super().apply(index, data, token)
        if not index % DIGEST_EVERY:
            self.member.group.invariants.state(self.member.id, self)

    def _replace(self, index: int, tables: dict[str, Table[Any]]) -> None:
        super()._replace(index, tables)
        self.member.group.invariants.state(self.member.id, self)


class Member:
    """One manager: its disk, and the process that runs on it, when one does."""

    def __init__(self, group: Group, id: int, files: Files, node_id: str) -> None:
        self.group = group
        self.id = id
        self.node_id = node_id
        self.files = files
        self.process: Process | None = None
        self.replica: WatchedReplica | None = None
        self.store: WatchedStore | None = None
        self.clock: MemberClock | None = None
        self.is_retired = False
        """It was taken out of the group, or its disk is gone: it is not started again."""
        self.is_locked_out = False
        """Its disk is not its own: it must refuse to start."""
        self._tasks: list[asyncio.Task[None]] = []
        self._starts = 0

    def __repr__(self) -> str:
        return f"m{self.id}"

    @property
    def is_up(self) -> bool:
        return self.replica is not None

    # The process

    def start(self) -> None:
        """Start the program, on what its disk holds."""
        assert self.process is None
        self._starts += 1
        process = self.process = Process(self.files, self.group.split_chance(), self._on_power_cut)
        token = PROCESS.set(process)
        try:
            self._tasks = [asyncio.create_task(self._run(process), name=f"{self}")]
        finally:
            PROCESS.reset(token)

    def maybe_start(self) -> None:
        """Start it, unless it runs or is never to run again."""
        if self.process is None and not self.is_retired:
            self.start()

    def _restart_soon(self) -> None:
        asyncio.get_running_loop().call_later(self.group.chance.random(), self.maybe_start)

    async def _run(self, process: Process) -> None:
        group = self.group
        try:
            replica = await self._open(process)
        except PowerCut:
            self._on_power_cut(process)
            return
        except (SwarmError, OSError) as error:
            if process.is_alive:
                self._refuses_to_start(error)
            return
        if replica is None or not process.is_alive:
            return
        if self.is_locked_out:
            group.broken(f"{self} starts on a disk that is not its own")
        group.note("%s starts: term %d, log to %d", self, replica.raft.term, replica.raft.log.last_index)
        group.invariants.started(replica.raft)
        self.replica = replica
        assert self.store is not None
        self._tasks.append(asyncio.create_task(self.store.run(), name=f"{self} store"))
        try:
            await replica.run()
        except DiskFailedError as error:
            group.note("%s ends: %s", self, error)
            if process.is_alive:
                self.crash()
                self._restart_soon()
        except Exception as error:  # noqa: BLE001 - no other error may end a replica
            group.broken(f"{self} failed: {error!r}")

    async def _open(self, process: Process) -> WatchedReplica:
        clock = self.clock = MemberClock(process, asyncio.get_running_loop())
        store = self.store = WatchedStore(clock=clock.now)
        store.member = self
        replica = await WatchedReplica.open(
            folder=cast(Any, SimulatedPath(process.files, FOLDER)),
            store=store,
            node_id=self.node_id,
            address="",
            bootstrap=False,
            clock=clock,
            tick_seconds=_TICK_SECONDS,
            election_tick=self.group.election_tick,
            limits=self.group.limits,
            send=self._send,
            chance=Random(self.group.chance.random()),
        )
        assert isinstance(replica, WatchedReplica)
        replica.member = self
        store.connect(replica)
        return replica

    def _refuses_to_start(self, error: Exception) -> None:
        group = self.group
        group.note("%s refuses to start: %s", self, error)
        is_broken = self.files.is_failing
        self.crash()
        if self.is_locked_out:
            self.group.count("start refused on a disk that is empty or another's")
            self.is_retired = True
        elif is_broken:
            self._restart_soon()
        else:
            group.broken(f"{self} refuses to start on its own disk: {error}")

    def crash(self, *, power_cut: bool = False) -> None:
        """End the process at once; its disk keeps what a kill leaves, or only what a power cut does."""
        process = self.process
        if process is None:
            return
        process.end()
        # Where the fuse has blown, that was the moment.
        image = process.files.image
        self.files = image or (process.files.after_power_cut() if power_cut else process.files.after_kill())
        self.files.capacity = process.files.capacity
        self.process = self.replica = self.store = self.clock = None
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._tasks = []
        self.group.died(self)

    def _on_power_cut(self, process: Process) -> None:
        self.group.note("%s loses power in the middle of a write", self)
        self.group.count("power cut in a write")
        if process is self.process:
            self.crash(power_cut=True)
            self._restart_soon()

    # What it does

    def sees(self, raft: Raft, effect: Effect) -> None:
        group, invariants = self.group, self.group.invariants
        match effect:
            case Persist():
                if effect.entries:
                    invariants.writes(raft, effect.entries)
                if group.is_traced:
                    what = f"{len(effect.entries)} entries" if effect.entries else effect.hard_state
                    group.note("%s writes #%d: %s", self, effect.number, what)
            case TakeBack():
                group.note("%s takes back what is from entry %d on", self, effect.index)
                invariants.takes_back(raft, effect.index)
            case Apply():
                group.note("%s applies %d to %d", self, effect.entries[0].index, effect.entries[-1].index)
                invariants.applies(raft, effect.entries)
            case Restore():
                group.note("%s takes over the snapshot of entry %d", self, effect.snapshot.index)
                group.count("snapshot taken over")
                invariants.snapshot(self.id, effect.snapshot)
            case Announce():
                group.note("%s is %s in term %d, leader %d", self, effect.role.value, effect.term, effect.leader)
                if effect.role is Role.LEADER:
                    group.elections += 1
                    group.clients.maybe_ask_new_leader(self)
                    invariants.leads(raft)

    def _send(self, message: Message) -> None:
        self.group.sent()
        self.group.invariants.sends(message)
        self.group.note("%s -> %s", self, message)
        if isinstance(message, InstallSnapshot):
            task = asyncio.create_task(self._ship(message), name=f"{self} ships a snapshot")
            self._tasks.append(task)
        else:
            self.group.network.send(message)

    def take(self, message: Message) -> None:
        """A message arrives."""
        if self.process is not None:
            self.process.soon(lambda: self._step(Received(message)))

    def tell_unreachable(self, id: int) -> None:
        if self.process is not None:
            self.process.soon(lambda: self._step(MemberUnreachable(id)))

    def tell_gone(self, id: int) -> None:
        """Nobody listens where a member was, or so it seems from here."""
        if self.process is not None:
            self.process.soon(lambda: self._step(MemberGone(id)))

    def _step(self, event: Event) -> None:
        if self.replica is not None:
            self.replica.demand(event)

    # Snapshots on the way

    async def _ship(self, message: InstallSnapshot) -> None:
        """Send the content of a snapshot, piece by piece; whoever it is for may vanish on the way, and go on later."""
        process, group = self.process, self.group
        assert process is not None
        receiver = group.members.get(message.to)
        is_delivered = False
        try:
            assert self.replica is not None
            reader = await self.replica.open_own_snapshot(message.snapshot.index)
            await self._travel(message, process)
            if receiver is not None and receiver.replica is not None:
                is_delivered = await receiver.accept_snapshot(message, reader, partial(self._travel, message, process))
        except (OSError, SwarmError):
            pass
        if not is_delivered:
            group.note("%s: the snapshot for %d did not arrive", self, message.to)
        if process is self.process:
            process.soon(lambda: self._step(SnapshotSent(message.to, is_delivered)))

    async def _travel(self, message: InstallSnapshot, process: Process) -> None:
        """Let one part of a snapshot arrive. Raises AbortedError where it can't."""
        network = self.group.network
        await asyncio.sleep(network.seconds() + _PIECE_SECONDS * self.group.chance.random())
        is_broken = network.breaking and self.group.chance.random() < network.breaking
        if is_broken or network.is_cut(message.sender, message.to) or not process.is_alive:
            self.group.count("snapshot interrupted")
            raise AbortedError("the stream broke")

    async def accept_snapshot(
        self, message: InstallSnapshot, reader: SnapshotReader, travel: Callable[[], Awaitable[None]]
    ) -> bool:
        """Receive a snapshot in a task of this member's, which ends when it does; whether all of it came."""
        replica, group = self.replica, self.group
        assert replica is not None
        transfer = reader.transfer.hex()[:16]

        async def pieces(first: int) -> AsyncIterator[bytes]:
            for piece in list(reader.pieces(first)):
                await travel()
                yield piece

        async def receive() -> None:
            first = await replica.received(message, transfer)
            if first:
                group.count("a snapshot goes on where it broke off")
            await replica.install(message, pieces(first), transfer=transfer, first=first)

        task = asyncio.create_task(receive())
        self._tasks.append(task)
        await asyncio.wait([task])
        if task.cancelled():
            return False
        error = task.exception()
        if error is not None and not isinstance(error, SwarmError | DiskFailedError):
            group.broken(f"{self} could not receive a snapshot: {error!r}")
        return error is None


def make_folder(files: Files, node_id: str, raft_id: int, membership: Membership | None) -> None:
    """The state of a founding member, or of one that joins and knows nothing (`membership` None)."""
    folder: Any = SimulatedPath(files, FOLDER)
    folder.mkdir()
    keys = KeyRing.create(folder / KEY_FILE)
    member = {"format": 1, "node_id": node_id, "raft_id": raft_id}
    replace_file(folder / MEMBER_FILE, json.dumps(member).encode())
    log_file, _ = LogFile.open(folder, keys)
    if membership is None:
        log_file.append([HardState(0, NO_ONE, 0)])
    else:
        log_file.append([Entry(1, 1, EntryKind.MEMBERSHIP, membership.encode()), HardState(1, NO_ONE, 1)])
    log_file.close()


def small_limits(chance: Random) -> Limits:
    """Limits that a short run reaches."""
    return Limits(
        snapshot_entries=chance.choice((5, 10, 30)),
        keep_entries=chance.choice((0, 1, 2, 20)),
        keep_bytes=chance.choice((0, 0, 2000)),
        snapshot_retry_seconds=1.0,
        segment_bytes=chance.choice((512, 2048, 16384)),
        reserve_bytes=8192,
    )

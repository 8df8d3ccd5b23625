"""One manager's replica of the store: drives the Raft machine, carries its effects out, and applies what is agreed."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import (
    InternalError,
    LostLeadershipError,
    NotLeaderError,
    SwarmError,
    UnavailableError,
)
from swarmcore.raft.effects import (
    Accept,
    Announce,
    Apply,
    Effect,
    Explain,
    Persist,
    Refuse,
    RefuseRead,
    Restore,
    Role,
    Send,
    ServeRead,
    TakeBack,
)
from swarmcore.raft.events import (
    Event,
    Persisted,
    PersistRefused,
    Proposed,
    Received,
    Started,
    TransferDemanded,
)
from swarmcore.raft.machine import Raft
from swarmcore.raft.membership import Member, Membership, MembershipChange
from swarmcore.raft.messages import InstallSnapshot, Message
from swarmcore.raft.types import NO_ONE, Entry, Settings, SnapshotMeta
from swarmcore.replication.applier import Applier, restore
from swarmcore.replication.changes import Changes
from swarmcore.replication.disk import Disk, in_thread
from swarmcore.replication.groups import outlived
from swarmcore.replication.keys import KeyRing
from swarmcore.replication.log_file import disk_full
from swarmcore.replication.pulse import Pulse
from swarmcore.replication.reads import Reads
from swarmcore.replication.roll import ManagerMember, Roll
from swarmcore.replication.snapshot_file import SnapshotReader
from swarmcore.replication.snapshots import Limits, Snapshots
from swarmcore.replication.state_folder import State, open_state
from swarmcore.replication.watchdog import SLOW_SHARE, Watchdog, WriteTimes
from swarmcore.replication.write_queue import WriteQueue
from swarmcore.store.store import Store

log = logging.getLogger("swarmcore.replication")
R = TypeVar("R")

READ_SECONDS = 5.0
HAND_OVER_SECONDS = 2.0
STUCK_SECONDS = 5.0
"""So long a write waits for a disk that hangs, where nobody else could lead."""
HELD_MESSAGES = 4096
"""Messages that wait for the disk; older ones are lost, as messages may be."""
_STOPPING = "the manager is stopping"
_SYSTEM_CLOCK = SystemClock()


_LIMITS = Limits()


class Replica:
    """Satisfies `store.Proposer` and `manager.leading.Leadership`. Lives on one loop; only `Disk` leaves it.

    `open`, then keep `run` running; `aclose` at the end. Writes come from `Store.run` through `propose`.
    """

    def __init__(
        self, *, folder: Path, store: Store, state: State, address: str, clock: Clock, settings: Settings,
        tick_seconds: float, limits: Limits, send: Callable[[Message], None], chance: Random,
    ) -> None:  # fmt: skip
        """Called by `open` alone."""
        self._folder = folder
        self.address = address
        """Where this manager is, by its own word."""
        self.heard_at: dict[int, str] = {}
        """Where members say that they are themselves, by id."""
        self._clock = clock
        self._send = send
        self._keys = state.keys
        self._log_file = state.log_file
        self._folder_lock = state.lock
        self._joined_group = state.group
        self._raft = Raft(
            id=state.raft_id,
            log=state.log,
            hard_state=state.hard_state,
            snapshot=state.snapshot,
            settings=settings,
            chance=chance,
        )
        self._log_disk = Disk("raft log")
        election_seconds = settings.election_tick * tick_seconds
        self.election_seconds = election_seconds
        """How long others wait for this manager before they elect another one."""
        self._watchdog = Watchdog(election_tick=settings.election_tick, tick_seconds=tick_seconds)
        self.write_times = WriteTimes(slow_seconds=SLOW_SHARE * election_seconds, where=str(folder))
        """How long the disk takes to make writes of the log durable."""
        self._writes = WriteQueue(
            state.log_file,
            self._log_disk,
            clock,
            took=lambda seconds: self.write_times.took(seconds, clock.monotonic()),
            written=self._on_written,
            refused=self._on_refused,
            failed=self._fail,
        )
        self._applier = Applier(
            store,
            state.snapshot.index,
            read_snapshot=self.open_snapshot,
            on_disk=lambda call: self._snapshots.disk.submit(call),
            on_entry=self._on_entry,
            on_slice=lambda: self._snapshots.note_growth(),
            failed=self._fail,
        )
        self._snapshots = Snapshots(
            folder=folder,
            store=store,
            keys=state.keys,
            log_file=state.log_file,
            log_disk=self._log_disk,
            limits=limits,
            clock=clock,
            raft=self._raft,
            applier=self._applier,
            taken=self._step,
        )
        self._durable = 0
        self._held: deque[Send] = deque(maxlen=HELD_MESSAGES)
        self._lost_until = 0
        """Writers of entries up to here were told that they don't know: the next ones wait until those are applied."""
        self._term = 0
        self._term_waiters: set[asyncio.Future[None]] = set()
        self._roll = Roll(self._raft, clock, election_seconds)
        self._reads = Reads(self._step)
        self._changes = Changes(self._raft, self._applier, self._step, lambda: bool(self._term))
        self._pulse = Pulse(
            clock=clock,
            tick_seconds=tick_seconds,
            election_seconds=election_seconds,
            watchdog=self._watchdog,
            writes=self._writes,
            applier=self._applier,
            step=self._step,
            leads=lambda: bool(self._term),
            beaten=self._beaten,
        )
        self._answer: Accept | Refuse | None = None
        self._is_stopped = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls,
        *,
        folder: Path,
        store: Store,
        node_id: str,
        address: str,
        unlock_key: bytes | None = None,
        bootstrap: bool,
        joined_as: int | None = None,
        joined_group: str = "",
        force_new_group: bool = False,
        clock: Clock = _SYSTEM_CLOCK,
        tick_seconds: float = 0.1,
        heartbeat_tick: int = 1,
        election_tick: int = 10,
        limits: Limits = _LIMITS,
        send: Callable[[Message], None] = lambda message: None,
        chance: Random | None = None,
    ) -> Replica:
        """Read keys, snapshot and log in `folder`, and put the snapshot into `store`; entries follow once it runs.

        Where there is no state yet: `bootstrap` begins a cluster of this manager alone, `joined_as` the state of a
        member to which a leader gave that id, in `joined_group`. `force_new_group` leaves this manager alone in a new
        group. Raises DamagedStateError and ConfigurationError, in one line.
        """
        state = await in_thread(
            partial(
                open_state,
                folder,
                node_id=node_id,
                address=address,
                unlock_key=unlock_key,
                bootstrap=bootstrap,
                joined_as=joined_as,
                joined_group=joined_group,
                force_new_group=force_new_group,
                segment_bytes=limits.segment_bytes,
                reserve_bytes=limits.reserve_bytes,
            ),
            unwanted=State.close,
        )
        try:
            if state.snapshot_file is not None:
                await restore(store, state.snapshot_file, asyncio.to_thread)
            return cls(
                folder=folder,
                store=store,
                state=state,
                address=address,
                clock=clock,
                settings=Settings(
                    election_tick=election_tick, heartbeat_tick=heartbeat_tick, max_kept_bytes=limits.keep_bytes
                ),
                tick_seconds=tick_seconds,
                limits=limits,
                send=send,
                chance=chance or Random(),
            )
        except BaseException:
            state.close()
            raise

    # What others ask

    @property
    def term(self) -> int:
        """The term in which this manager leads with its whole log applied; 0 while it does not."""
        return self._term

    @property
    def next_index(self) -> int:
        return self._raft.log.last_index + 1

    @property
    def applied(self) -> int:
        """Index of the last applied entry."""
        return self._applier.index

    def applied_point(self) -> SnapshotMeta:
        """Where the store is in the log, and who belongs to the group there. Raises UnavailableError."""
        index = self._applier.index
        term = self._raft.log.term_at(index)
        if term is None:
            raise UnavailableError("a snapshot is about to replace the store of this manager: ask again")
        return SnapshotMeta(index=index, term=term, membership=self._raft.membership_at(index))

    @property
    def snapshot_index(self) -> int:
        """The entry that the newest snapshot ends with; 0 before the first."""
        return self._raft.snapshot.index

    @property
    def is_writable(self) -> bool:
        """Whether a write proposed now is likely to succeed."""
        return self._term != 0 and not self._writes.is_full and not self._failure.done()

    def members(self) -> Sequence[ManagerMember]:
        """All managers, by id."""
        return self._roll.members()

    def who_is_missing(self) -> str:
        """How many managers have to be there for a write, and which ones are silent."""
        return self._roll.who_is_missing()

    async def wait_leadership_change(self, known: int) -> int:
        """Return the term once it differs from `known`."""
        while self._term == known:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._term_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._term_waiters.discard(waiter)
        return self._term

    async def propose(self, data: bytes, token: object) -> None:
        """Return once the entry was applied, with `token` given to `Store.apply`.

        Raises NotLeaderError when leadership was lost before it was committed (it may still be applied, without the
        token), ResourceExhaustedError when the disk is full, UnavailableError when it hangs and nobody else can lead,
        and what ended the replica when its disk failed.
        """
        if not self._term:
            raise NotLeaderError("this manager is not the leader")
        if self._lost_until > self._applier.index:
            # The data was made from tables that lack those entries.
            raise self._stuck()
        if self._writes.is_full:
            index = self.next_index
            if not await self._has_room() or self.next_index != index:
                raise disk_full(self._folder)
        answer = self._step(Proposed(data))
        if not isinstance(answer, Accept):
            raise NotLeaderError(answer.reason if answer is not None else "this manager is not the leader")
        await self._applier.expect(answer.index, answer.term, token)

    async def _has_room(self) -> bool:
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                return await self._writes.check_room()
        except TimeoutError:
            raise self._stuck() from None

    def _stuck(self) -> UnavailableError:
        why = self._watchdog.why_not or "its disk does not answer"
        return UnavailableError(f"this manager can't write under {str(self._folder)!r} now: {why}")

    @property
    def why_unfit(self) -> str:
        """Why this manager can't lead as it is; empty while it can."""
        return self._watchdog.why_not

    # The group

    @property
    def raft_id(self) -> int:
        return self._raft.id

    @property
    def membership(self) -> Membership:
        """Who belongs to the group, as this manager's log says."""
        return self._raft.membership

    @property
    def group(self) -> str:
        """The name of the group; empty for the one that the cluster was founded with."""
        membership = self._raft.membership
        return membership.group if membership.members else self._joined_group

    def replaced(self, details: str) -> None:
        """A manager of this cluster says that its group took the place of this one: end, with what to do."""
        self._fail(outlived(details, self._folder.parent))

    @property
    def leader(self) -> Member | None:
        """Who leads, as far as this manager knows."""
        return self._raft.membership.members.get(self._raft.leader)

    def tell(self, event: Event) -> Accept | Refuse | None:
        """Something happened outside: a message came, a member can't be reached. The answer is that to a demand."""
        if isinstance(event, Received):
            self._roll.hears(event.message.sender)
        return self._step(event)

    async def change_membership(self, change: MembershipChange) -> None:
        """Return once the change is agreed and applied, after the one that is under way.

        Raises NotLeaderError, FailedPreconditionError, and UnavailableError where no majority agrees in time.
        """
        await self._changes.make(change)

    def reachable(self) -> Sequence[int]:
        """Members that this one hears from, itself included."""
        return sorted(self._raft.active_members)

    async def hand_over(self) -> bool:
        """Let the voter that is most up to date lead; whether one took over. For a leader that stops or is demoted."""
        successor = self._raft.successor
        if not self._term or successor == NO_ONE:
            return False
        self._step(TransferDemanded(successor))
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await self.wait_leadership_change(self._term)
        except TimeoutError:
            return False
        return True

    async def open_snapshot(self, snapshot: SnapshotMeta) -> SnapshotReader:
        """The snapshot file that an InstallSnapshot announces. Raises OSError when a newer one took its place."""
        return await self._snapshots.read(snapshot)

    async def received(self, message: InstallSnapshot, transfer: str) -> int:
        """How many pieces of a snapshot are here already; `install` goes on from there."""
        return await self._snapshots.received(message.snapshot, transfer)

    async def install(
        self, message: InstallSnapshot, pieces: AsyncIterator[bytes], *, transfer: str, first: int = 0
    ) -> None:
        """Take a snapshot from the leader: all of it on disk first, then the machine is told.

        `pieces` are those of `transfer`, which names the sender's file, from the one numbered `first` on. What came of
        them is kept when the stream breaks. Raises ResourceExhaustedError where the disk has no room, AbortedError
        when it has to be sent again.
        """
        snapshot = message.snapshot
        async with self._snapshots.lock:
            if snapshot.index > self._applier.index:
                await self._snapshots.receive(snapshot, pieces, transfer=transfer, first=first)
            self._step(Received(message))

    async def read_barrier(self) -> None:
        """Return once the store shows everything that was committed anywhere before this call (Raft: ReadIndex).

        Raises UnavailableError when nobody can confirm that, within five seconds at most.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._applier.wait(await self._reads.index())
        except TimeoutError:
            raise UnavailableError(f"nobody could confirm the read: {self.who_is_missing()}") from None

    @property
    def keys(self) -> KeyRing:
        """The keys of what this manager keeps on its disk. Change them with `change_keys`."""
        return self._keys

    async def change_keys(self, change: Callable[[KeyRing], R]) -> R:
        """Change the keys on disk, which blocks; durable when this returns. Raises OSError."""
        return await self._snapshots.disk.submit(lambda: change(self._keys))

    async def rotate_keys(self) -> None:
        """Encrypt everything new, and a fresh snapshot, under a new data key. Older keys go when no file needs them.

        Raises ResourceExhaustedError when the disk has no room for the snapshot; it is made later then.
        """
        await self._snapshots.rotate_keys()

    # Running

    async def run(self) -> None:
        """Drive the machine until cancelled. Raises DiskFailedError when the disk failed: the process has to end."""
        tasks = [
            asyncio.create_task(self._pulse.run(), name="raft ticks"),
            asyncio.create_task(self._snapshots.run(), name="raft snapshots"),
        ]
        try:
            self._step(Started())
            done, _ = await asyncio.wait({*tasks, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What the disk is still at is durable then, and applied by the next start.
            self._is_stopped = True
            self._end(LostLeadershipError(_STOPPING))

    async def aclose(self) -> None:
        """Finish what the disk is at and close the files. After `run` has ended."""
        await self._log_disk.close()
        await self._snapshots.disk.close()
        self._log_file.close()
        self._folder_lock.close()
        if not self._failure.cancel() and not self._failure.cancelled():
            self._failure.exception()

    def _beaten(self) -> None:
        self._changes.promote()
        if self._term and self._watchdog.why_not and self._watchdog.stuck_seconds >= STUCK_SECONDS:
            # Alone: others have taken over else.
            self._lost_until = self._raft.log.last_index
            self._applier.lose(self._stuck())

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._end(InternalError(f"the raft log failed: {error}"))

    def _end(self, error: SwarmError) -> None:
        self._set_term(0)
        self._applier.close(error)
        self._reads.end(_STOPPING)

    # The machine

    def _step(self, event: Event) -> Accept | Refuse | None:
        if self._is_stopped or self._failure.done():
            return None
        self._answer = None
        for effect in self._raft.step(event):
            self._carry_out(effect)
        answer, self._answer = self._answer, None
        self._applier.run(self._durable)
        return answer

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Persist():
                self._writes.put(effect)
            case Apply():
                self._applier.add(effect.after, *effect.entries)
            case Accept() | Refuse():
                self._answer = effect
            case Send():
                if effect.after <= self._durable:
                    self._send(effect.message)
                else:
                    self._held.append(effect)
            case Announce():
                self._on_announce(effect)
            case Explain():
                log.warning("this manager gives up leading: %s", effect.reason)
            case TakeBack():
                self._writes.take_back()
                self._held.clear()
                self._applier.lose(disk_full(self._folder), effect.index)
            case Restore():
                self._applier.add(effect.after, effect.snapshot)
            case ServeRead():
                self._reads.answer(effect.read, effect.index)
            case RefuseRead():
                self._reads.answer(effect.read, None)

    def _on_announce(self, announce: Announce) -> None:
        log.debug("%s in term %d, leader %x", announce.role.value, announce.term, announce.leader)
        if announce.role is not Role.LEADER or announce.term != self._term:
            self._set_term(0)
        if announce.role is not Role.LEADER:
            self._applier.lose(
                LostLeadershipError(
                    "leadership was lost before the write was agreed, and it may still take effect: "
                    + self.who_is_missing()
                )
            )

    # The disk

    def _on_written(self, number: int) -> None:
        self._durable = number
        self._step(Persisted(number))
        for _ in range(len(self._held)):
            held = self._held.popleft()
            if held.after <= number:
                self._send(held.message)
            else:
                self._held.append(held)

    def _on_refused(self, number: int) -> None:
        log.warning("%s", disk_full(self._folder))
        self._step(PersistRefused(number))

    # Applied

    def _on_entry(self, entry: Entry) -> None:
        if entry.term != self._term and entry.term == self._raft.term and self._raft.is_leader:
            # An entry of the own term is applied, and so is everything before it.
            self._set_term(entry.term)

    def _set_term(self, term: int) -> None:
        if term == self._term:
            return
        self._term = term
        for waiter in self._term_waiters:
            if not waiter.done():
                waiter.set_result(None)
        if term:
            asyncio.get_running_loop().call_soon(self._changes.note_address, self.address)

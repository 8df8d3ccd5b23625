"""A whole group of managers in one run: it is disturbed for a while, then left in peace, and then all must be well."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from random import Random
from typing import Any

from swarmcore.errors import SwarmError
from swarmcore.raft.effects import Refuse
from swarmcore.raft.events import MembershipProposed
from swarmcore.raft.machine import Raft
from swarmcore.raft.membership import Member as RaftMember
from swarmcore.raft.membership import Membership, Remove
from swarmcore.raft.messages import InstallSnapshot, Message
from swarmcore.testing.simulation import history
from swarmcore.testing.simulation.clients import Clients, final_lists
from swarmcore.testing.simulation.faults import Faults
from swarmcore.testing.simulation.files import Files
from swarmcore.testing.simulation.invariants import Invariants
from swarmcore.testing.simulation.member import Member, make_folder, small_limits
from swarmcore.testing.simulation.network import Network

DISTURBED_SECONDS = 6.0
CALM_SECONDS = 30.0
"""In peace, a group must be whole again within this."""
_MAX_MESSAGES = 40_000
_SIZES = (3, 3, 3, 3, 3, 5, 5, 5, 4, 2, 1)


class ViolationError(AssertionError):
    """Something that must always hold does not."""


class Group:
    """Everything of one run: members, network, clients, faults, and what must hold. Made inside the loop."""

    def __init__(self, seed: int, *, is_traced: bool) -> None:
        self.chance = Random(seed)
        self.is_traced = is_traced
        self.transcript: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._violation: asyncio.Future[None] = self._loop.create_future()
        self.counts = Counter[str]()
        """What happened, and what was looked at, how often."""
        self.invariants = Invariants(self.broken, self._running, self.counts)
        self.elections = 0
        self.messages = 0
        self.looks: list[tuple[str, tuple[int, ...]]] = []
        self.election_tick = self.chance.choice((3, 5, 10))
        self.limits = small_limits(self.chance)
        self.network = Network(self.split_chance(), self._deliver, self._lost, self.counts)
        self.network.breaking = self.chance.choice((0.0, 0.0, 0.05, 0.2))
        self.members: dict[int, Member] = {}
        self.faults = Faults(self)
        self.clients = Clients(self)
        self._chance_of_deaths = self.split_chance()
        self._background: set[asyncio.Task[Any]] = set()
        self.lists: dict[str, tuple[int, ...]] = {}

    # What everybody uses

    def split_chance(self) -> Random:
        """A source of chance of one's own, so that one part drawing more does not change another."""
        return Random(self.chance.getrandbits(64))

    def sent(self) -> None:
        """One more message: a run that never comes to rest is one that something is wrong with."""
        self.messages += 1
        if self.messages > _MAX_MESSAGES:
            self.broken(f"{_MAX_MESSAGES} messages, and no end of them")

    def count(self, what: str) -> None:
        """Something happened that a run is there for."""
        self.counts[what] += 1

    def note(self, text: str, *values: object) -> None:
        if self.is_traced:
            self.transcript.append(f"{self._loop.time():9.4f}  {text % values if values else text}")

    def broken(self, what: str) -> None:
        """End the run: `what` does not hold."""
        self.note("BROKEN: %s", what)
        if not self._violation.done():
            self._violation.set_exception(ViolationError(what))

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let something go on beside everything else; whether it succeeds does not matter."""

        async def run() -> None:
            try:
                await work
            except SwarmError as error:
                self.note("%s", error)

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _running(self) -> dict[int, Raft]:
        return {id: member.replica.raft for id, member in self.members.items() if member.replica is not None}

    def add(self, id: int, node_id: str) -> Member:
        member = self.members[id] = Member(self, id, Files(self.split_chance(), self.counts), node_id)
        return member

    def died(self, member: Member) -> None:
        """The others' connections to it break; most of them then find that nobody listens there."""
        for other in self.members.values():
            is_seen = self._chance_of_deaths.random() < 0.7 and not self.network.is_cut(other.id, member.id)
            if other.is_up and is_seen:
                self._loop.call_later(self._chance_of_deaths.random() * 0.1, self._see_death, other, member)

    @staticmethod
    def _see_death(other: Member, member: Member) -> None:
        if member.process is None:
            other.tell_gone(member.id)

    def expel(self, id: int) -> None:
        """Have a member taken out that will never come back, however often that must be asked for."""
        self.background(self._expel(id))

    async def _expel(self, id: int) -> None:
        while True:
            await asyncio.sleep(0.2)
            leader = self.leader()
            if leader is None or leader.replica is None:
                continue
            raft = leader.replica.raft
            if id not in raft.membership and raft.membership_index <= raft.commit:
                return
            if id in raft.membership and not isinstance(leader.replica.demand(MembershipProposed(Remove(id))), Refuse):
                self.note("%s is asked to remove %d", leader, id)

    def leader(self) -> Member | None:
        """The one that serves writes in the newest term."""
        serving = [(m.replica.term, m.id) for m in self.members.values() if m.replica is not None and m.replica.term]
        return self.members[max(serving)[1]] if serving else None

    # The network

    def _deliver(self, message: Message) -> None:
        member = self.members.get(message.to)
        if member is not None:
            member.take(message)

    def _lost(self, message: Message) -> None:
        sender = self.members.get(message.sender)
        if sender is not None and not isinstance(message, InstallSnapshot) and self.chance.random() < 0.2:
            sender.tell_unreachable(message.to)

    # The run

    async def run(self) -> None:
        """All of it. Raises ViolationError."""
        try:
            await self._guarded(self._run())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await self._end()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        await asyncio.wait([task, self._violation], return_when=asyncio.FIRST_COMPLETED)
        if self._violation.done():
            task.cancel()
            await asyncio.wait([task])
            self._violation.result()
        task.result()

    async def _run(self) -> None:
        self._found()
        disturbance = [asyncio.create_task(self.faults.run()), asyncio.create_task(self.clients.run())]
        await asyncio.wait(disturbance, timeout=DISTURBED_SECONDS)
        for task in disturbance:
            task.cancel()
            if task.done():
                task.result()
        self.note("peace")
        self.faults.undo()
        await self._recover()
        self._check_whole()

    def _found(self) -> None:
        size = self.chance.choice(_SIZES)
        members = {id: RaftMember(id=id, node_id=f"node-{id}", address="", is_voter=True) for id in range(1, size + 1)}
        if size > 1 and self.chance.random() < 0.35:
            members[size] = replace(members[size], is_voter=False)
        membership = Membership(members, size)
        for id in members:
            member = self.add(id, f"node-{id}")
            make_folder(member.files, member.node_id, id, membership)
            member.start()
        self.note("a group of %d; %s", size, [kind.__name__ for kind in self.faults.kinds])

    async def _recover(self) -> None:
        """Wait until a new write is served, and every member has it."""
        deadline = self._loop.time() + CALM_SECONDS
        is_written = False
        while not (is_written and self._is_whole()):
            if self._loop.time() > deadline:
                raise ViolationError(f"nothing is served {CALM_SECONDS:g} s after everything was put right")
            await asyncio.sleep(0.2)
            leader = self.leader()
            if leader is not None and not is_written:
                task = asyncio.create_task(self.clients.append(leader, "x"))
                await asyncio.wait([task], timeout=5.0)
                is_written = task.done() and task.result()

    def _whole(self) -> list[Member]:
        """The members of the group as its leader has it."""
        leader = self.leader()
        if leader is None or leader.replica is None:
            return []
        return [self.members[id] for id in leader.replica.raft.membership.members if id in self.members]

    def _is_whole(self) -> bool:
        leader = self.leader()
        if leader is None or leader.replica is None:
            return False
        raft = leader.replica.raft
        goal = raft.log.last_index
        return raft.commit == goal and all(
            member.replica is not None and member.replica.applied >= goal
            for member in self._whole()
            if not member.is_retired
        )

    def _check_whole(self) -> None:
        """Equal states, and an order of all operations that explains what the clients saw."""
        whole = [member for member in self._whole() if member.store is not None]
        states = {b"".join(member.store.snapshot()) for member in whole if member.store is not None}
        if len(states) != 1:
            raise ViolationError(f"the states of {whole} differ")
        self.counts["states compared at the end"] += len(whole)
        assert whole[0].store is not None
        self.lists = final_lists(whole[0].store)
        found = history.check(self.clients.operations, self.lists)
        self.counts["histories checked"] += 1
        self.counts["operations in histories"] += len(self.clients.operations)
        if found is not None:
            raise ViolationError(found)
        for key, seen in self.looks:
            if seen != self.lists[key][: len(seen)]:
                raise ViolationError(f"{key} was seen as {seen} at some member, and became {self.lists[key]}")

    async def _end(self) -> None:
        self.clients.stop()
        for member in self.members.values():
            member.crash()
        me = asyncio.current_task()
        for _ in range(3):
            rest = [task for task in asyncio.all_tasks() if task is not me]
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest)

    def digest(self) -> str:
        """The transcript in a few letters: the same for the same seed."""
        return hashlib.sha256("\n".join(self.transcript).encode()).hexdigest()[:16]

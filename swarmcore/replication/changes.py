"""Changes of the membership, as a leader makes them: one after another, each waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmcore.errors import FailedPreconditionError, NotLeaderError, UnavailableError
from swarmcore.raft.effects import Accept, Refuse
from swarmcore.raft.events import Event, MembershipProposed
from swarmcore.raft.machine import Raft
from swarmcore.raft.membership import MembershipChange, Move, Promote
from swarmcore.replication.applier import Applier

MEMBERSHIP_SECONDS = 10.0


class Changes:
    """Does nothing while this manager does not lead."""

    def __init__(
        self, raft: Raft, applier: Applier, step: Callable[[Event], Accept | Refuse | None], leads: Callable[[], bool]
    ) -> None:
        self._raft = raft
        self._applier = applier
        self._step = step
        self._leads = leads

    async def make(self, change: MembershipChange) -> None:
        """Return once the change is agreed and applied, after the one that is under way.

        Raises NotLeaderError, FailedPreconditionError, and UnavailableError where no majority agrees in time.
        """
        try:
            async with asyncio.timeout(MEMBERSHIP_SECONDS):
                while self._leads() and self._raft.membership_index > self._raft.commit:
                    await self._applier.wait(self._raft.membership_index)
                await self._propose(change)
        except TimeoutError:
            raise UnavailableError("too few managers answered to change the membership: ask again") from None

    async def _propose(self, change: MembershipChange) -> None:
        answer = self._step(MembershipProposed(change))
        if not isinstance(answer, Accept):
            if not self._leads():
                raise NotLeaderError("this manager is not the leader")
            raise FailedPreconditionError(answer.reason if answer is not None else "the manager is stopping")
        await self._applier.expect(answer.index, answer.term, None)

    def promote(self) -> None:
        """Make a learner a voter as soon as it has caught up; the machine refuses it before."""
        if not self._leads():
            return
        for member in self._raft.membership.members.values():
            if not member.is_voter:
                self._step(MembershipProposed(Promote(member.id)))
                return

    def note_address(self, address: str) -> None:
        """A manager that was started with another address says so to the others, once it leads."""
        member = self._raft.membership.members.get(self._raft.id)
        if self._leads() and address and member is not None and member.address != address:
            self._step(MembershipProposed(Move(member.id, address)))

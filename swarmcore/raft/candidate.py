"""A candidate: asks the others for their votes, first without any change of term (paper §5.2, thesis §9.6)."""

from __future__ import annotations

from swarmcore.raft.core import Core
from swarmcore.raft.effects import Role
from swarmcore.raft.follower import Follower
from swarmcore.raft.messages import Message, VoteReply, VoteRequest
from swarmcore.raft.types import NO_ONE


class Candidate(Follower):
    """One election, or with `is_pre` the question whether one could be won. Else it behaves as a follower does."""

    def __init__(self, core: Core, *, is_pre: bool) -> None:
        super().__init__(core)
        self.kind = Role.PRE_CANDIDATE if is_pre else Role.CANDIDATE
        self._is_pre = is_pre
        self._is_transfer = False
        self._granted = {core.id}
        self._refused: set[int] = set()

    def ask(self, *, is_transfer: bool) -> None:
        """Count the own vote, and ask for the others where it does not suffice."""
        self._is_transfer = is_transfer
        if not self._maybe_end():
            self._ask()

    def tick(self) -> None:
        super().tick()
        if self._core.role is self:
            # A question may be lost, and who still heard a leader a moment ago gave no answer.
            self._ask()

    def _ask(self) -> None:
        core = self._core
        for voter in core.membership.voters:
            if voter != core.id and voter not in self._granted | self._refused:
                core.send(
                    VoteRequest(
                        sender=core.id,
                        to=voter,
                        term=core.term + self._is_pre,
                        last_index=core.log.last_index,
                        last_term=core.log.last_term,
                        is_pre=self._is_pre,
                        is_transfer=self._is_transfer,
                    )
                )

    def receive(self, message: Message) -> None:
        match message:
            case VoteReply(is_pre=self._is_pre):
                (self._granted if message.is_granted else self._refused).add(message.sender)
                self._maybe_end()

    def _maybe_end(self) -> bool:
        core = self._core
        if core.has_majority(self._granted):
            if self._is_pre:
                core.campaign(is_pre=False)
            else:
                core.become_leader()
            return True
        if core.has_majority(self._refused):
            core.become_follower(core.term, NO_ONE)
            return True
        return False

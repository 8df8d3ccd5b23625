"""A follower: takes what the leader sends, and campaigns when it hears nothing (paper §5.2, §5.3)."""

from __future__ import annotations

from swarmcore.raft.core import Core, RoleState
from swarmcore.raft.effects import Refuse, RefuseRead, Role, ServeRead
from swarmcore.raft.events import MembershipProposed, ReadDemanded, TransferDemanded
from swarmcore.raft.messages import (
    AppendReply,
    AppendRequest,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    ReadReply,
    ReadRequest,
    TimeoutNow,
)
from swarmcore.raft.types import NO_ONE, EntryKind

NOT_THE_LEADER = "this member does not lead"


class Follower(RoleState):
    """Also what a learner is, which never campaigns."""

    kind = Role.FOLLOWER

    def __init__(self, core: Core) -> None:
        self._core = core

    def tick(self) -> None:
        core = self._core
        core.silence += 1
        if core.silence >= core.timeout and core.may_campaign:
            core.campaign(is_pre=True)

    def receive(self, message: Message) -> None:
        match message:
            case AppendRequest():
                self._append(message)
            case Heartbeat():
                self._core.silence = 0
                self._core.commit_to(message.commit)
                self._core.send(
                    HeartbeatReply(sender=self._core.id, to=message.sender, term=self._core.term, round=message.round)
                )
            case InstallSnapshot():
                self._install(message)
            case TimeoutNow():
                self._core.campaign(is_pre=False, is_transfer=True)
            case ReadReply():
                self._core.emit(ServeRead(message.read, message.index))

    def _append(self, request: AppendRequest) -> None:
        core, log = self._core, self._core.log
        core.silence = 0
        if core.unfit and request.entries:
            return  # What it took in would pile up in memory; the leader sends it again.
        if request.previous_index < core.commit:
            # Committed entries are the leader's, so an old message can only confirm them.
            self._accept(request.sender, core.commit)
        elif log.has(request.previous_index, request.previous_term):
            new = request.entries[log.conflict(request.entries) :]
            if new:
                core.append(new)
            last = request.previous_index + len(request.entries)
            core.commit_to(min(request.commit, last))
            self._accept(request.sender, last)
        else:
            index, term = log.last_place_up_to(request.previous_index, request.previous_term)
            core.send(
                AppendReply(
                    sender=core.id,
                    to=request.sender,
                    term=core.term,
                    is_accepted=False,
                    index=request.previous_index,
                    hint_index=index,
                    hint_term=term,
                )
            )

    def _install(self, request: InstallSnapshot) -> None:
        core, snapshot = self._core, request.snapshot
        core.silence = 0
        if snapshot.index <= core.commit:
            self._accept(request.sender, core.commit)
        elif core.log.has(snapshot.index, snapshot.term):
            # All of it is in the log already: it only says that so much is committed.
            core.commit_to(snapshot.index)
            self._accept(request.sender, core.commit)
        else:
            core.replace_log(snapshot)
            self._accept(request.sender, snapshot.index)

    def _accept(self, leader: int, index: int) -> None:
        core = self._core
        reply = AppendReply(sender=core.id, to=leader, term=core.term, is_accepted=True, index=index)
        core.send(reply, needs_log=True)

    def propose(self, kind: EntryKind, data: bytes) -> None:
        self._core.emit(Refuse(NOT_THE_LEADER))

    def propose_membership(self, event: MembershipProposed) -> None:
        self._core.emit(Refuse(NOT_THE_LEADER))

    def transfer(self, event: TransferDemanded) -> None:
        self._core.emit(Refuse(NOT_THE_LEADER))

    def read(self, event: ReadDemanded) -> None:
        core = self._core
        if core.leader == NO_ONE:
            core.emit(RefuseRead(event.read))
        else:
            core.send(ReadRequest(sender=core.id, to=core.leader, term=core.term, read=event.read))

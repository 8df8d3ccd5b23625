"""Messages and effects of the Raft machine in words, as scenarios show them. Entries are written index/term."""

from __future__ import annotations

from collections.abc import Sequence

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
from swarmcore.raft.membership import Membership
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
    VoteReply,
    VoteRequest,
)
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState


def places(entries: Sequence[Entry]) -> str:
    """The entries' places, runs of one term drawn together: `2/1 3-5/2`."""
    runs: list[tuple[int, int, int]] = []
    for entry in entries:
        if runs and runs[-1][2] == entry.term:
            runs[-1] = (runs[-1][0], entry.index, entry.term)
        else:
            runs.append((entry.index, entry.index, entry.term))
    return " ".join(f"{first}/{term}" if first == last else f"{first}-{last}/{term}" for first, last, term in runs)


def entry_words(entries: Sequence[Entry]) -> str:
    """The entries with what is in them."""
    return " ".join(f"{entry.index}/{entry.term}{_content(entry)}" for entry in entries)


def _content(entry: Entry) -> str:
    if entry.kind is EntryKind.MEMBERSHIP:
        members = Membership.decode(entry.data).members.values()
        return ":members(" + ",".join(f"{member.id}{'' if member.is_voter else '?'}" for member in members) + ")"
    return f":{entry.data.decode()}" if entry.data else ""


def message_words(message: Message) -> str:
    """One message without its sender and receiver."""
    term = f"term {message.term}"
    match message:
        case VoteRequest(is_pre=True):
            return f"would you vote for me in {term}? my log ends at {message.last_index}/{message.last_term}"
        case VoteRequest():
            why = ", as the leader asked me" if message.is_transfer else ""
            return f"vote for me in {term}{why}; my log ends at {message.last_index}/{message.last_term}"
        case VoteReply(is_pre=True):
            return f"{'I would' if message.is_granted else 'I would not'}, {term}"
        case VoteReply():
            return f"{'you have my vote' if message.is_granted else 'no vote'}, {term}"
        case AppendRequest():
            what = entry_words(message.entries) or "nothing"
            place = f"{message.previous_index}/{message.previous_term}"
            return f"append after {place}: {what}; committed {message.commit}, {term}"
        case AppendReply(is_accepted=True):
            return f"I have all up to {message.index}, {term}"
        case AppendReply():
            hint = f"; perhaps {message.hint_index}/{message.hint_term}" if message.hint_index else ""
            return f"I lack {message.index}{hint}, {term}" if message.index else f"you are behind, {term}"
        case Heartbeat():
            round = f", round {message.round}" if message.round else ""
            return f"heartbeat; committed {message.commit}{round}, {term}"
        case HeartbeatReply():
            round = f" to round {message.round}" if message.round else ""
            return f"heard{round}, {term}"
        case InstallSnapshot():
            return f"snapshot of {message.snapshot.index}/{message.snapshot.term}, {term}"
        case TimeoutNow():
            return f"campaign now, {term}"
        case ReadRequest():
            return f"may I answer read {message.read}? {term}"
        case ReadReply():
            return f"answer read {message.read} at {message.index}, {term}"


def effect_words(effect: Effect) -> str:
    """One effect: what the member does, or for a message also between whom it goes."""
    match effect:
        case Send(message):
            return f"{message.sender} -> {message.to}  {message_words(message)}"
        case Persist():
            return f"writes {persist_words(effect)}"
        case Apply(entries):
            return f"applies {entry_words(entries)}"
        case Restore(snapshot):
            return f"takes over the snapshot of {snapshot.index}/{snapshot.term}"
        case Announce(Role.FOLLOWER, term, leader) if leader != NO_ONE:
            return f"follows {leader} in term {term}"
        case Announce(role, term):
            return f"is {role.value} in term {term}"
        case Explain(reason):
            return f"says why: {reason}"
        case Accept(index, term):
            return f"takes it in as {index}/{term}"
        case Refuse(reason):
            return f"refuses: {reason}"
        case TakeBack(index):
            return f"takes back all from {index} on"
        case ServeRead(read, index):
            return f"answers read {read} once {index} is applied"
        case RefuseRead(read):
            return f"can't answer read {read}"
        case _:
            return f"{effect}"


def persist_words(persist: Persist, *, known: HardState | None = None) -> str:
    """What is to be durable; a term and vote that are `known` to be so are left out."""
    parts = []
    if persist.snapshot is not None:
        parts.append(f"the snapshot of {persist.snapshot.index}/{persist.snapshot.term} in the place of its log")
    if persist.entries:
        parts.append(places(persist.entries))
    new = persist.hard_state
    if new is not None and (known is None or (new.term, new.vote) != (known.term, known.vote)):
        parts.append(f"term {new.term}" + (f" and its vote for {new.vote}" if new.vote else ""))
    return ", ".join(parts)

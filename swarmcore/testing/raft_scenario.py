"""Readable scenarios of the Raft machine: text files of commands, each followed by what the members do about it.

    > campaign 1
      1 is pre-candidate in term 1
      1 -> 2  would you vote for me in term 2? my log ends at 1/1

A line that begins with `>` is a command, indented lines are its transcript, everything else is for the reader. Entries
are written index/term. `check` compares a file with what happens now; the command line rewrites it:

    python -m swarmcore.testing.raft_scenario --rewrite tests/raft/scenarios/*.txt

Chance is taken out: every member waits exactly its election timeout (three ticks unless `group` says otherwise), and a
message stays under way until a command delivers or loses it. The commands are the `_do_…` methods of `Scenario`.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from swarmcore.raft.effects import Effect, Persist, Send
from swarmcore.raft.events import (
    CampaignDemanded,
    FitnessJudged,
    MemberGone,
    MembershipProposed,
    MemberUnreachable,
    PersistRefused,
    Proposed,
    ReadDemanded,
    StoodStill,
    Ticked,
    TransferDemanded,
)
from swarmcore.raft.leader import Leader
from swarmcore.raft.membership import AddLearner, Member, Membership, MembershipChange, Move, Promote, Remove
from swarmcore.raft.messages import AppendReply, AppendRequest, Message
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState, Settings
from swarmcore.testing.raft_group import Group, Storage, TestMember, voters
from swarmcore.testing.raft_words import effect_words, message_words, persist_words, places

_PROMPT, _INDENT = "> ", "  "
_ELECTION_TICK = 3


class ScenarioError(Exception):
    """A command that can't be understood, or can't be carried out; says which and why."""


class _NoChance(Random):
    """Draws nothing, so that a transcript depends on no one else's draws."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return 0


class _SpokenGroup(Group):
    """A group that says what its members do."""

    def __init__(self, membership: Membership, settings: Settings, say: Callable[[str], None]) -> None:
        self.say = say
        super().__init__(*membership.members, members=membership, settings=settings)

    def start(self, id: int, storage: Storage) -> None:
        self.chance = _NoChance()
        super().start(id, storage)

    def _carry_out(self, member: TestMember, effect: Effect) -> None:
        held = len(member.held)
        super()._carry_out(member, effect)
        if isinstance(effect, Persist):
            verb = "is to write" if member.is_disk_slow else "writes"
            self.say(f"{member.id} {verb} {persist_words(effect, known=member.storage.hard_state)}")
            return
        words = effect_words(effect) if isinstance(effect, Send) else f"{member.id} {effect_words(effect)}"
        if len(member.held) == held:
            self.say(words)
        elif member.is_disk_slow and isinstance(effect, Send):
            self.say(f"{member.id} holds back until that is written: {words}")

    def deliver_one(self, *, is_lost: bool = False) -> None:
        message = self.network[0]
        link = (message.sender, message.to)
        fate = "  lost" if is_lost or link in self.cut or message.to not in self.members else ""
        self.say(f"{message.to} <- {message.sender}  {message_words(message)}{fate}")
        super().deliver_one(is_lost=is_lost)


class Scenario:
    """One file's run."""

    def __init__(self) -> None:
        self._group: _SpokenGroup | None = None
        self._lines: list[str] = []
        self._crashed: dict[int, Storage] = {}
        self._reads = 0

    def run(self, command: str) -> list[str]:
        """Carry one command out; return its transcript. Raises ScenarioError."""
        words = command.split()
        is_quiet = words[:1] == ["quietly"]
        name, arguments = words[is_quiet], words[is_quiet + 1 :]
        do = getattr(self, f"_do_{name.replace('-', '_')}", None)
        if do is None:
            raise ScenarioError(f"{command!r}: no such command as {name!r}")
        self._lines = []
        try:
            do(arguments)
        except (KeyError, IndexError, ValueError) as error:
            raise ScenarioError(f"{command!r}: {type(error).__name__} {error}") from error
        return [] if is_quiet else self._lines

    def _say(self, line: str) -> None:
        self._lines.append(line)

    @property
    def group(self) -> _SpokenGroup:
        if self._group is None:
            raise ScenarioError("the first command must be `group`")
        return self._group

    # The group: members, logs, disks

    def _do_group(self, words: list[str]) -> None:
        """group 1 2 3 [learner=4,5] [election_tick=3] [max_inflight=4] …: begin, with everybody in term 1."""
        options = dict(word.split("=") for word in words if "=" in word)
        learners = [int(id) for id in options.pop("learner", "").split(",") if id]
        ids = [int(word) for word in words if "=" not in word]
        settings = replace(
            Settings(election_tick=_ELECTION_TICK), **{key: int(value) for key, value in options.items()}
        )
        membership = voters(*ids)
        members = dict(membership.members)
        for id in learners:
            members[id] = Member(id=id, node_id=f"node-{id}", address=f"host-{id}:4242", is_voter=False)
        self._group = _SpokenGroup(Membership(members, max([*ids, *learners])), settings, self._say)

    def _do_log(self, words: list[str]) -> None:
        """log 1 [term=5] [commit=2] 1 2 2: a log of these terms, after the first entry, and a restart."""
        options = dict(word.split("=") for word in words if "=" in word)
        id, *terms = [int(word) for word in words if "=" not in word]
        storage = self.group.crash(id)
        del storage.entries[1:]
        for index, term in enumerate(terms, 2):
            storage.entries.append(Entry(index, term, EntryKind.NORMAL, f"{index}/{term}".encode()))
        term = int(options.get("term", max([1, *terms])))
        storage.hard_state = HardState(term, NO_ONE, int(options.get("commit", 1)))
        self.group.start(id, storage)

    def _do_crash(self, words: list[str]) -> None:
        """crash 2: what is not durable is gone."""
        for id in map(int, words):
            self._crashed[id] = self.group.crash(id)

    def _do_start(self, words: list[str]) -> None:
        """start 2: after a crash, on what its disk holds."""
        for id in map(int, words):
            self.group.start(id, self._crashed.pop(id))

    def _do_join(self, words: list[str]) -> None:
        """join 4: start a member that knows nothing yet."""
        for id in map(int, words):
            self.group.join(id)

    def _do_disk(self, words: list[str]) -> None:
        """disk 2 slow | writes | quick | full | forgets 5: what it was given last, and how it ends.

        Slow: nothing becomes durable until it writes, or is quick again. Full: it refuses what waits. It forgets: the
        member crashes and comes back without the entries from that one on.
        """
        id, what = int(words[0]), words[1]
        member = self.group.members[id]
        match what:
            case "slow":
                member.is_disk_slow = True
            case "writes" | "quick":
                if member.unwritten:
                    self._say(f"{id} has written what it was to write")
                member.is_disk_slow = what == "writes"
                self.group.write(id)
            case "full":
                self.group.step(id, PersistRefused(member.unwritten[0].number))
            case "forgets":
                storage = self.group.crash(id)
                storage.entries = [entry for entry in storage.entries if entry.index < int(words[2])]
                storage.hard_state = replace(storage.hard_state, commit=storage.entries[-1].index)
                self.group.start(id, storage)
            case _:
                raise ValueError(what)

    def _do_snapshot(self, words: list[str]) -> None:
        """snapshot 1 [keep=2]: of what is applied; so many entries before it stay in the log."""
        options = dict(word.split("=") for word in words[1:])
        self.group.snapshot(int(words[0]), int(options.get("keep", 0)))

    # Time and demands

    def _do_tick(self, words: list[str]) -> None:
        """tick 1 2 [x3]: time passes for these members only. Messages stay under way."""
        times = next((int(word[1:]) for word in words if word.startswith("x")), 1)
        for _ in range(times):
            for id in (int(word) for word in words if not word.startswith("x")):
                self.group.step(id, Ticked())

    def _do_silence(self, words: list[str]) -> None:
        """silence 2 3: as if these had heard nothing of a leader for an election timeout, but do not campaign yet."""
        for id in map(int, words):
            self.group[id].silence = self.group.settings.election_tick

    def _do_campaign(self, words: list[str]) -> None:
        """campaign 1: stand for election now."""
        self.group.step(int(words[0]), CampaignDemanded())

    def _do_lead(self, words: list[str]) -> None:
        """lead 1: make it leader, and let everybody have its first entry and know that it is committed."""
        id = int(words[0])
        self._do_silence([str(other) for other in self.group.members if other != id])
        self._do_campaign(words)
        self.group.settle()
        self.group.step(id, Ticked())
        self.group.settle()
        if not self.group[id].is_leader:
            raise ScenarioError(f"member {id} was not elected")

    def _do_propose(self, words: list[str]) -> None:
        """propose 1 a b c: one entry each."""
        for data in words[1:]:
            self.group.step(int(words[0]), Proposed(data.encode()))

    def _do_change(self, words: list[str]) -> None:
        """change 1 add node-4 | promote 4 | remove 3 | move 2 host:4242: ask member 1 for it."""
        self.group.step(int(words[0]), MembershipProposed(_change(words[1:])))

    def _do_transfer(self, words: list[str]) -> None:
        """transfer 1 3: member 1 is to hand over to 3."""
        self.group.step(int(words[0]), TransferDemanded(int(words[1])))

    def _do_read(self, words: list[str]) -> None:
        """read 2: a linearizable read at member 2. Reads are numbered from 1."""
        self._reads += 1
        self.group.step(int(words[0]), ReadDemanded(self._reads))

    def _do_unreachable(self, words: list[str]) -> None:
        """unreachable 1 3: member 1 is told that it can't reach 3."""
        self.group.step(int(words[0]), MemberUnreachable(int(words[1])))

    def _do_gone(self, words: list[str]) -> None:
        """gone 2 1: member 2 is told that the process of its leader 1 has ended."""
        self.group.step(int(words[0]), MemberGone(int(words[1])))

    def _do_unfit(self, words: list[str]) -> None:
        """unfit 1 the disk hangs: why member 1 can't do what a leader must; no reason: it can again."""
        self.group.step(int(words[0]), FitnessJudged(" ".join(words[1:])))

    def _do_stood_still(self, words: list[str]) -> None:
        """stood-still 1: time passed elsewhere, and none here."""
        self.group.step(int(words[0]), StoodStill())

    # The network

    def _do_cut(self, words: list[str]) -> None:
        """cut 1->2 …, or cut 3: one way between two, or a member from all the others."""
        for word in words:
            if "->" in word:
                self.group.cut.add(_link(word))
            else:
                self.group.isolate(int(word))

    def _do_heal(self, words: list[str]) -> None:
        """heal: nothing is cut any more."""
        self.group.heal()

    def _do_deliver(self, words: list[str]) -> None:
        """deliver | deliver 2 | deliver 1->2: until nothing is under way; or what is now, to a member or on a link."""
        if not words:
            self.group.settle()
        self._take(words, is_lost=False)

    def _do_lose(self, words: list[str]) -> None:
        """lose 2 | lose 1->2: what is under way now, to a member or on a link."""
        self._take(words, is_lost=True)

    def _do_double(self, words: list[str]) -> None:
        """double 1->2: what is under way on a link will arrive twice."""
        for message in [message for message in self.group.network if _is_on(message, words)]:
            self.group.network.append(message)

    def _do_claim(self, words: list[str]) -> None:
        """claim 3->1 99: member 3 says to 1 that it has all entries up to 99, and that is not so."""
        sender, to = _link(words[0])
        term = self.group[to].term
        reply = AppendReply(sender=sender, to=to, term=term, is_accepted=True, index=int(words[1]))
        self.group.network.append(reply)

    def _do_append(self, words: list[str]) -> None:
        """append 1->3 after=2/1 count=2 commit=5: member 1 sends entries of its log to 3, whatever it knows."""
        sender, to = _link(words[0])
        options = dict(word.split("=") for word in words[1:] if "=" in word)
        index, _, term = options["after"].partition("/")
        log = self.group[sender].log
        count = int(options["count"])
        message = AppendRequest(
            sender=sender,
            to=to,
            term=self.group[sender].term,
            previous_index=int(index),
            previous_term=int(term),
            entries=log.between(int(index) + 1, int(index) + count),
            commit=int(options["commit"]),
        )
        self.group.network.append(message)

    def _do_reverse(self, words: list[str]) -> None:
        """reverse 1->2: what is under way on a link arrives in the other order."""
        network = self.group.network
        some = [message for message in network if _is_on(message, words)]
        rest = [message for message in network if not _is_on(message, words)]
        network.clear()
        network.extend([*rest, *reversed(some)])

    def _take(self, words: list[str], *, is_lost: bool) -> None:
        network = self.group.network
        for message in [message for message in network if _is_on(message, words)]:
            network.remove(message)
            network.appendleft(message)
            self.group.deliver_one(is_lost=is_lost)

    # Looking

    def _do_show(self, words: list[str]) -> None:
        """show 1 2 …: role, term, vote, log and what is committed; of all members when none is named."""
        for id in map(int, words or map(str, self.group.members)):
            raft = self.group[id]
            vote = f", voted for {raft.vote}" if raft.vote else ""
            entries = raft.log.between(raft.log.start_index + 1, raft.log.last_index)
            start = f"snapshot {raft.log.start_index}, " if raft.log.start_index else ""
            self._say(
                f"{id}: {raft.role.kind.value} in term {raft.term}{vote}; "
                f"{start}log {places(entries) or 'empty'}; committed {raft.commit}"
            )

    def _do_progress(self, words: list[str]) -> None:
        """progress 1: what a leader knows of the others."""
        role = self.group[int(words[0])].role
        if not isinstance(role, Leader):
            raise ScenarioError(f"member {words[0]} does not lead")
        for id, progress in role.progress.items():
            paused = ", paused" if progress.is_paused else ""
            under_way = f", {len(progress.inflight)} under way" if progress.inflight else ""
            self._say(f"{id}: {progress.pace.value}, has {progress.match}, next {progress.next}{under_way}{paused}")

    def _do_members(self, words: list[str]) -> None:
        """members 1: the membership that a member goes by."""
        raft = self.group[int(words[0])]
        voting = ", ".join(str(id) for id in raft.membership.voters)
        learning = ", ".join(str(member.id) for member in raft.membership.members.values() if not member.is_voter)
        state = "committed" if raft.membership_index <= raft.commit else "not committed"
        self._say(f"voters {voting}; learners {learning or 'none'}; from entry {raft.membership_index}, {state}")

    def _do_data(self, words: list[str]) -> None:
        """data 1 2 …: what each member has applied."""
        for id in map(int, words or map(str, self.group.members)):
            self._say(f"{id}: {' '.join(self.group.data(id)) or 'nothing'}")


def _change(words: list[str]) -> MembershipChange:
    match words:
        case ["add", node_id]:
            return AddLearner(node_id, f"{node_id}:4242")
        case ["promote", id]:
            return Promote(int(id))
        case ["remove", id]:
            return Remove(int(id))
        case ["move", id, address]:
            return Move(int(id), address)
    raise ValueError(" ".join(words))


def _link(word: str) -> tuple[int, int]:
    sender, _, to = word.partition("->")
    return int(sender), int(to)


def _is_on(message: Message, words: Iterable[str]) -> bool:
    return any(
        (message.sender, message.to) == _link(word) if "->" in word else message.to == int(word) for word in words
    )


# Files


def played(text: str) -> str:
    """The text of a scenario with the transcript that its commands have now. Raises ScenarioError."""
    scenario = Scenario()
    lines: list[str] = []
    for number, line in enumerate(_without_transcripts(text), 1):
        lines.append(line)
        if line.startswith(_PROMPT):
            try:
                lines.extend(_INDENT + said for said in scenario.run(line.removeprefix(_PROMPT)))
            except (ScenarioError, AssertionError) as error:
                raise ScenarioError(f"command {number}: {error}") from error
    return "\n".join(lines) + "\n"


def check(path: Path) -> str:
    """What differs between a file's transcript and what happens now, as a diff; empty when nothing does."""
    text = path.read_text()
    diff = difflib.unified_diff(text.splitlines(), played(text).splitlines(), f"{path}", "now", lineterm="")
    return "\n".join(diff)


def _without_transcripts(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if not line.startswith(_INDENT))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play files; 1 when a transcript differs."""
    parser = argparse.ArgumentParser(prog="python -m swarmcore.testing.raft_scenario", description="play scenarios")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rewrite", action="store_true", help="put what happens now into the files; review the diff")
    args = parser.parse_args(arguments)
    differences = 0
    for path in args.files:
        if args.rewrite:
            path.write_text(played(path.read_text()))
        elif found := check(path):
            differences += 1
            print(found)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())

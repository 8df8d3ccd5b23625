"""A new group of managers out of what one member knows: `swarmd --force-new-cluster`.

The cluster goes on with all that this member has. The others are out for good: their ids are removed ones, and what
they send carries the name of a group whose place this one took (`groups.py`). It is one write of one frame, so a kill
leaves the old group or the new one. Everything here blocks.
"""

from __future__ import annotations

import logging

from swarmcore.api.ids import new_id
from swarmcore.errors import ConfigurationError
from swarmcore.raft.log import RaftLog
from swarmcore.raft.membership import Membership
from swarmcore.raft.types import NO_ONE, Entry, EntryKind, HardState, SnapshotMeta
from swarmcore.replication.log_file import LogFile

log = logging.getLogger("swarmcore.replication")


def membership_of(snapshot: SnapshotMeta, entries: RaftLog) -> Membership:
    """The newest membership that a member holds; an empty one where nothing has reached it yet. Raises ValueError."""
    for entry in reversed(entries.between(snapshot.index + 1, entries.last_index)):
        if entry.kind is EntryKind.MEMBERSHIP:
            return Membership.decode(entry.data)
    return snapshot.membership


def make_anew(
    log_file: LogFile,
    hard_state: HardState,
    entries: RaftLog,
    snapshot: SnapshotMeta,
    *,
    raft_id: int,
    node_id: str,
    address: str,
) -> HardState:
    """Make this member the only one of a new group; the hard state from now on. `entries` grow by one.

    Every entry is kept, certain or not: which ones the old group had agreed on, nobody can say any more. Raises
    ConfigurationError where this member has no cluster to go on with.
    """
    old = membership_of(snapshot, entries)
    if not old.members:
        raise ConfigurationError(
            "--force-new-cluster: nothing of the cluster has reached this manager yet: use another one, or a backup"
        )
    if raft_id not in old:
        raise ConfigurationError(
            "--force-new-cluster: this manager was removed from its group, which went on without it: use another one"
        )
    if old.voters == (raft_id,) and len(old.members) == 1:
        log.info("this manager is the only one already: nothing to force")
        return hard_state
    if not old.is_voter(raft_id):
        log.warning("this manager was still catching up: what it has not received yet is lost")
    new = old.made_anew(id=raft_id, node_id=node_id, address=address, group=new_id())
    term = max(hard_state.term, entries.last_term) + 1
    entry = Entry(entries.last_index + 1, term, EntryKind.MEMBERSHIP, new.encode())
    hard_state = HardState(term, NO_ONE, hard_state.commit)
    log_file.append([entry, hard_state])
    entries.append((entry,))
    others = ", ".join(f"{each.node_id} at {each.address}" for each in old.members.values() if each.id != raft_id)
    log.warning(
        "this manager is the only one from now on, with everything up to entry %d; out for good: %s",
        entry.index - 1,
        others,
    )
    return hard_state

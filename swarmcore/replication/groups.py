"""Which group of managers a message comes from: each stream names it, and who belongs to another one is refused.

After `--force-new-cluster` or a restore there are two groups of one cluster, with certificates of one root. Members of
the old one may still run, or be started again: they are told that their place was taken, and end.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from swarmcore.errors import ConfigurationError, FailedPreconditionError, PermissionDeniedError
from swarmcore.raft.membership import Membership

GROUP = "swarm-raft-group"
REPLACED = "swarm-raft-replaced"
ADDRESS = "swarm-raft-address"
"""Where the sender is, by its own word: a log that is behind knows only where it was."""
OLD_GROUP = "the managers' group of this node was replaced"
MAX_REPLACED = 4096
_FOUNDING = "-"
"""The founding group has no name, and a header with no content looks like none."""

Metadata = tuple[tuple[str, str], ...]


def group_metadata(membership: Membership, group: str) -> Metadata:
    """What a member of `group` sends with each of its streams."""
    names = [name or _FOUNDING for name in membership.replaced]
    return ((GROUP, group or _FOUNDING), (REPLACED, ",".join(names)[-MAX_REPLACED:]))


def check_group(metadata: Iterable[tuple[str, str | bytes]], membership: Membership, group: str) -> None:
    """Refuse who is in another group than `group`, whose members are `membership`; calls that name none pass.

    Raises FailedPreconditionError for a group whose place this one took, PermissionDeniedError for a strange one.
    """
    found = {key: str(value) for key, value in metadata if key == GROUP}
    if GROUP not in found:
        return
    sender = "" if found[GROUP] == _FOUNDING else found[GROUP]
    if sender == group:
        return
    if sender in membership.replaced:
        address = next((each.address for each in membership.members.values() if each.is_voter), "")
        raise FailedPreconditionError(f"{OLD_GROUP}: the cluster goes on with the manager at {address}")
    raise PermissionDeniedError("this manager belongs to another group of managers of the same cluster")


def is_replacing(metadata: Iterable[tuple[str, str | bytes]], group: str) -> bool:
    """Whether the sender says that its group took the place of `group`."""
    found = {key: str(value)[:MAX_REPLACED] for key, value in metadata if key == REPLACED}
    return (group or _FOUNDING) in found.get(REPLACED, "").split(",")


def outlived(details: str, state_dir: Path) -> ConfigurationError:
    """What a member of an old group ends with, in the words of the manager that said so."""
    where = details.rpartition(" ")[2]
    return ConfigurationError(
        f"this manager belongs to an old group of managers: the cluster was started anew without it "
        f"(--force-new-cluster, or a restored backup) and goes on with the manager at {where}; empty "
        f"{str(state_dir)!r} and join that one, with --join-addr {where} and a token of `swarmctl cluster inspect`"
    )

"""`swarmctl raft`: what is in a manager's state directory, read offline and without changing anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarmcore.cli.command_line import CliError, Group, example, flags
from swarmcore.cli.text import Page, memory, table
from swarmcore.errors import SwarmError

if TYPE_CHECKING:
    from swarmcore.raft.types import Entry
    from swarmcore.replication.inspection import Damage, Inspection, SegmentFound, SnapshotFound

HEADERS = ("Index", "Term", "Kind", "Size", "What")
FOUNDING = "the founding one"
_MAX_CHANGES = 8

folder_options = flags(
    click.option(
        "--state-dir",
        "-d",
        metavar="DIR",
        default="/var/lib/swarmd",
        show_default=True,
        help="The state directory of a manager.",
    ),
    click.option(
        "--unlock-key-file", metavar="PATH", default="", help="Where a locked manager's unlock key is; - asks for it."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """Look into a manager's state directory, offline.

    The manager need not run, and may. Nothing is changed, and of objects the ids alone are shown.
    """


@command.command(
    name="dump",
    epilog=example(
        "swarmctl raft dump -d /var/lib/swarmd --from 1200",
        "swarmctl raft dump --json | jq .last",
    ),
)
@folder_options
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="The first entry to show.")
@click.option("--to", "last", type=click.IntRange(min=0), help="The last entry to show.")
def dump(state_dir: str, unlock_key_file: str, as_json: bool, first: int, last: int | None) -> None:
    """Show the records of the log, the membership, the hard state and the snapshots.

    Of several managers, the one whose last entry has the highest term, and of those the highest index, knows the most.
    """
    found = _inspect(state_dir, unlock_key_file)
    end = last if last is not None else found.last[0]
    entries = [entry for entry in found.entries if first <= entry.index <= end]
    if as_json:
        click.echo(json.dumps({**_summary(found), "entries": [_entry(entry) for entry in entries]}, indent=2))
    else:
        click.echo(_page(found))
        if entries:
            click.echo(table(HEADERS, map(_row, entries)))
        _say_damage(found.damage)
    if found.damage:
        raise SystemExit(1)


@command.command(
    name="verify",
    epilog=example("swarmctl raft verify -d /var/lib/swarmd && echo whole"),
)
@folder_options
def verify(state_dir: str, unlock_key_file: str, as_json: bool) -> None:
    """Check that everything is there, intact and readable with its keys; exit code 1 where it is not.

    Each damage is named with its file and byte. The manager may run meanwhile.
    """
    found = _inspect(state_dir, unlock_key_file)
    if as_json:
        click.echo(json.dumps(_summary(found), indent=2))
    else:
        for segment in found.segments:
            if segment.unfinished_at >= 0:
                why = "a write is under way" if found.is_in_use else "the next start removes it: nobody was told of it"
                click.echo(f"{segment.path}: an unfinished write at byte {segment.unfinished_at}; {why}")
        _say_damage(found.damage)
        if not found.damage:
            files = len(found.segments) + len(found.snapshots)
            click.echo(
                f"{state_dir}: whole; {files} files, last entry {found.last[0]} of term {found.last[1]}, "
                f"{len(found.membership.members)} managers"
            )
    if found.damage:
        raise SystemExit(1)


def _inspect(state_dir: str, unlock_key_file: str) -> Inspection:
    from swarmcore.cli.unlock_key import find_unlock_key
    from swarmcore.replication.inspection import inspect

    folder = Path(state_dir).absolute() / "raft"
    if not folder.is_dir():
        raise CliError(f"there is no raft state in {state_dir!r}: name the state directory of a manager with -d")
    try:
        return inspect(folder, find_unlock_key("", unlock_key_file, os.environ))
    except SwarmError as error:
        raise CliError(str(error)) from None
    except OSError as error:
        raise CliError(f"can't read {error.filename or str(folder)!r}: {error.strerror or error}") from None


def _say_damage(damage: list[Damage]) -> None:
    for each in damage:
        click.echo(f"{str(each.path)!r} is damaged at byte {each.offset} ({each.what})")


def _page(found: Inspection) -> str:
    page = Page()
    page.add("Node", found.node_id)
    page.add("Raft id", found.raft_id)
    page.add("Group", found.group or FOUNDING)
    page.add("In use", "yes: its newest writes may be missing here" if found.is_in_use else "no")
    page.add("Locked", "yes" if found.is_locked else "no")
    page.add("Data key", found.current_key)
    if found.hard_state is not None:
        state = found.hard_state
        page.add("Hard state", f"term {state.term}, vote {state.vote or 'none'}, commit {state.commit}")
    page.add("Last entry", f"{found.last[0]} of term {found.last[1]}")
    page.listing("Managers", list(_members(found)))
    page.listing("Log", [_segment_line(segment) for segment in found.segments])
    page.listing("Snapshots", [_snapshot_line(snapshot) for snapshot in found.snapshots])
    return str(page)


def _members(found: Inspection) -> Iterator[str]:
    for member in found.membership.members.values():
        role = "voter" if member.is_voter else "learner"
        yield f"{member.id}: node {member.node_id} at {member.address}, {role}"


def _segment_line(segment: SegmentFound) -> str:
    entries = f"entries {segment.first_index} to {segment.last_index}" if segment.last_index else "no entries"
    torn = f", an unfinished write at byte {segment.unfinished_at}" if segment.unfinished_at >= 0 else ""
    return f"{segment.path.name}: {memory(segment.size)}, {segment.frames} writes, {entries}, key {segment.key}{torn}"


def _snapshot_line(snapshot: SnapshotFound) -> str:
    objects = ", ".join(f"{count} {name}" for name, count in snapshot.objects.items())
    meta = snapshot.meta
    return (
        f"{snapshot.path.name}: {memory(snapshot.size)}, entry {meta.index} of term {meta.term}, "
        f"key {snapshot.key}; {objects}"
    )


def _summary(found: Inspection) -> dict[str, Any]:
    state = found.hard_state
    return {
        "folder": str(found.folder),
        "is_in_use": found.is_in_use,
        "node_id": found.node_id,
        "raft_id": found.raft_id,
        "group": found.group,
        "replaced_groups": list(found.membership.replaced),
        "is_locked": found.is_locked,
        "current_key": found.current_key,
        "hard_state": None if state is None else {"term": state.term, "vote": state.vote, "commit": state.commit},
        "last": {"index": found.last[0], "term": found.last[1]},
        "last_raft_id": found.membership.last_id,
        "managers": [
            {"raft_id": each.id, "node_id": each.node_id, "address": each.address, "is_voter": each.is_voter}
            for each in found.membership.members.values()
        ],
        "segments": [
            {
                "path": str(each.path),
                "bytes": each.size,
                "key": each.key,
                "writes": each.frames,
                "first_index": each.first_index,
                "last_index": each.last_index,
                "unfinished_at": each.unfinished_at if each.unfinished_at >= 0 else None,
            }
            for each in found.segments
        ],
        "snapshots": [
            {
                "path": str(each.path),
                "bytes": each.size,
                "key": each.key,
                "index": each.meta.index,
                "term": each.meta.term,
                "objects": each.objects,
            }
            for each in found.snapshots
        ],
        "damage": [{"path": str(each.path), "offset": each.offset, "what": each.what} for each in found.damage],
    }


def _changes(entry: Entry) -> list[dict[str, Any]]:
    """What an entry does to the store: the kind of change, the table, the id, and the size of the object."""
    from google.protobuf.message import DecodeError

    from swarmcore.api.store_pb2 import StoreChange, Transaction
    from swarmcore.store.tables import SCHEMAS

    messages = {schema.table: schema.message for schema in SCHEMAS}
    changes = []
    try:
        for change in Transaction.FromString(entry.data).changes:
            id, message = change.id, messages.get(change.table)
            if change.action == StoreChange.PUT and message is not None:
                id = message.FromString(change.object).id
            word = StoreChange.Action.Name(change.action).lower()
            changes.append({"action": word, "table": change.table, "id": id, "bytes": len(change.object)})
    except DecodeError:
        return [{"action": "unreadable", "table": "", "id": "", "bytes": len(entry.data)}]
    return changes


def _entry(entry: Entry) -> dict[str, Any]:
    kind = entry.kind.name.lower()
    record: dict[str, Any] = {"index": entry.index, "term": entry.term, "kind": kind, "bytes": len(entry.data)}
    if kind == "membership":
        record["membership"] = json.loads(entry.data)
    else:
        record["changes"] = _changes(entry)
    return record


def _row(entry: Entry) -> tuple[str, ...]:
    kind = entry.kind.name.lower()
    if kind == "membership":
        what = entry.data.decode(errors="replace")
    elif not entry.data:
        what = "a leader began its term"
    else:
        changes = _changes(entry)
        words = [f"{change['action']} {change['table']} {change['id']}" for change in changes[:_MAX_CHANGES]]
        what = ", ".join(words) + (f" and {len(changes) - _MAX_CHANGES} more" if len(changes) > _MAX_CHANGES else "")
    return str(entry.index), str(entry.term), kind, str(len(entry.data)), what

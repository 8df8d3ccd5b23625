"""`swarmctl cluster backup` and `check-backup`: everything of a cluster in one encrypted file."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import grpc

from swarmcore.cli.command_line import CliError, Command, example
from swarmcore.cli.connection import manager
from swarmcore.cli.text import memory
from swarmcore.errors import SwarmError

if TYPE_CHECKING:
    from swarmcore.api.backup_pb2 import BackupHeader
    from swarmcore.replication.backup_file import BackupWriter

T = TypeVar("T")

PART_SECONDS = 60.0
"""So long the manager may take for the next part; a whole backup takes as long as it takes."""

passphrase_option = click.option(
    "--passphrase-file",
    metavar="PATH",
    default="",
    help="What encrypts the backup is the first line of this file; else it is asked for.",
)


@click.command(
    cls=Command,
    name="backup",
    epilog=example(
        "swarmctl cluster backup /backup/swarm-monday",
        "swarmctl cluster backup --passphrase-file /root/passphrase --overwrite /backup/swarm",
    ),
)
@click.argument("file", type=click.Path())
@passphrase_option
@click.option("--overwrite", is_flag=True, help="Replace a file of that name, once the new backup is whole.")
@click.option("--without-leader", is_flag=True, help="Take what this manager has, where no leader can be asked.")
def backup(file: str, passphrase_file: str, overwrite: bool, without_leader: bool) -> None:
    """Write everything of the cluster into one encrypted file, while it works.

    It holds all objects with their secrets, the root CA and the keys: swarmd --restore makes a new cluster of it.
    """
    from swarmcore.replication.backup_file import BackupWriter

    path = Path(file)
    if path.exists() and not (overwrite and path.is_file()):
        raise CliError(f"{file!r} is there already: name another file, or give --overwrite")
    try:
        writer = BackupWriter(path, _passphrase(passphrase_file, is_new=True))
        try:
            header = _receive(writer, without_leader)
            writer.finish()
        finally:
            writer.abandon()
    except SwarmError as error:
        raise CliError(str(error)) from None
    click.echo(f"{file}: {memory(writer.size)}, cluster {header.cluster_id} as of log entry {header.index}")
    if not header.is_confirmed:
        click.echo("Warning: no leader confirmed that this is the newest state", err=True)


@click.command(cls=Command, name="check-backup", epilog=example("swarmctl cluster check-backup /backup/swarm-monday"))
@click.argument("file", type=click.Path())
@passphrase_option
def check(file: str, passphrase_file: str) -> None:
    """Read a backup to its end: the passphrase is right, and nothing of it is missing or changed."""
    from swarmcore.replication.backup_file import BackupReader

    try:
        reader = BackupReader(Path(file), _passphrase(passphrase_file, is_new=False))
        try:
            header = reader.header
            size = sum(len(piece) for piece in reader.pieces())
        finally:
            reader.close()
    except SwarmError as error:
        raise CliError(str(error)) from None
    made = header.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
    click.echo(
        f"{file}: whole; cluster {header.cluster_id} as of log entry {header.index}, made {made}, "
        f"{memory(size)} of objects{'' if header.is_confirmed else ', not confirmed by a leader'}"
    )


def _receive(writer: BackupWriter, without_leader: bool) -> BackupHeader:
    """Write what the manager sends; its header. Raises CallError, and CliError for a stream that was cut."""
    from swarmcore.api.backup_pb2 import BackupPart, BackupRequest

    to = manager()
    header: BackupHeader | None = None
    count = 0
    call = to.backup.Take(BackupRequest(without_leader=without_leader))
    try:
        for part in _watched(call):
            assert isinstance(part, BackupPart)
            kind = part.WhichOneof("part")
            if (kind == "header") != (header is None):
                raise CliError("the manager sent parts of the backup out of order: try again")
            writer.add(part, is_last=kind == "end")
            if kind == "end":
                if part.end != count:
                    break
                assert header is not None
                return header
            if header is None:
                header = part.header
            else:
                count += 1
    except grpc.RpcError as error:
        raise to.failure(error) from None
    raise CliError("the manager did not send the whole backup: try again")


def _watched(call: Iterator[T]) -> Iterator[T]:
    """What comes, cancelled as soon as nothing does for too long."""
    while True:
        timer = threading.Timer(PART_SECONDS, call.cancel)  # type: ignore[attr-defined]
        timer.daemon = True
        timer.start()
        try:
            item = next(call, None)
        finally:
            timer.cancel()
        if item is None:
            return
        yield item


def _passphrase(file: str, *, is_new: bool) -> bytes:
    from swarmcore.replication.backup_file import checked_passphrase, read_passphrase

    if file:
        return read_passphrase(file)
    if not sys.stdin.isatty():
        raise CliError("the passphrase can't be asked for here: give it with --passphrase-file")
    typed = click.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=is_new, err=True)
    return checked_passphrase(os.fsencode(typed), "what was typed")

"""`swarmd --restore FILE`: an empty state directory becomes that of a manager with a whole cluster.

Everything is made in a folder beside, which then gets another name: with that it has happened, and whoever starts next
moves what is in it to its place. A kill leaves an empty directory, or a restored one. Everything here blocks.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from swarmcore.api.backup_pb2 import BackupHeader
from swarmcore.api.ids import new_id
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.files import CertificateFolder
from swarmcore.ca.root import DEFAULT_VALIDITY, RootCA, new_csr, new_key, public_key_of_csr
from swarmcore.errors import ConfigurationError
from swarmcore.raft.membership import Membership
from swarmcore.replication.backup_file import BackupReader
from swarmcore.replication.durable import replace_file, sync_folder
from swarmcore.replication.restored import write_restored

log = logging.getLogger("swarmcore.node")

UNFINISHED = "restoring"
COMPLETE = "restored"
ORIGIN = "restored.json"
_NOT_STATE = frozenset({"lock", "plugins.lock"})


def finish_restore(state_dir: Path) -> None:
    """Complete what a kill interrupted, or take it back. Called at each start, before the state is read."""
    try:
        if (state_dir / UNFINISHED).exists():
            # It holds every secret of a cluster.
            shutil.rmtree(state_dir / UNFINISHED)
            sync_folder(state_dir)
        complete = state_dir / COMPLETE
        if complete.is_dir():
            for path in sorted(complete.iterdir()):
                path.rename(state_dir / path.name)
            sync_folder(state_dir)
            complete.rmdir()
            sync_folder(state_dir)
    except OSError as error:
        raise _cannot_write(state_dir, error) from None


def restore(state_dir: Path, backup: Path, passphrase: bytes, *, address: str, now: float) -> bytes | None:
    """Make `state_dir` that of a manager with what `backup` holds; the cluster's unlock key, where it has one.

    `address` is what other nodes will be told. Does nothing where that has happened with this very backup. Raises
    ConfigurationError where the directory is not empty, or the backup can't be read, and has changed nothing then.
    """
    finish_restore(state_dir)
    reader = BackupReader(backup, passphrase)
    try:
        header = reader.header
        if _origin(state_dir) == header.id:
            log.info("%s was restored from this backup before: going on with it", str(state_dir))
            return header.unlock_key or None
        used = sorted(path.name for path in state_dir.iterdir() if path.name not in _NOT_STATE)
        if used:
            raise ConfigurationError(
                f"--restore needs an empty state directory, and {str(state_dir)!r} holds {', '.join(used[:5])}: "
                "name another one with --state-dir, or move that away"
            )
        try:
            _make(state_dir, reader, address, now)
        except OSError as error:
            raise _cannot_write(state_dir, error) from None
        finally:
            shutil.rmtree(state_dir / UNFINISHED, ignore_errors=True)
        finish_restore(state_dir)
    finally:
        reader.close()
    _say(header)
    return header.unlock_key or None


def _make(state_dir: Path, reader: BackupReader, address: str, now: float) -> None:
    header = reader.header
    node_id = new_id()
    folder = state_dir / UNFINISHED
    folder.mkdir(mode=0o700)
    keys = write_restored(
        folder / "raft",
        node_id=node_id,
        address=address,
        unlock_key=header.unlock_key or None,
        index=header.index,
        term=header.term,
        membership=header.membership,
        pieces=reader.pieces(),
    )
    root = RootCA(header.root_certificate, header.root_key)
    key = new_key()
    chain = root.sign(
        public_key_of_csr(new_csr(key)),
        node_id=node_id,
        role=NodeRole.MANAGER,
        cluster_id=header.cluster_id,
        now=now,
        validity=DEFAULT_VALIDITY,
    )
    files = CertificateFolder(folder / "certificates")
    files.create()
    files.write_root(header.root_certificate)
    files.write_node(chain, key, keys.identity_keys[0])
    replace_file(folder / ORIGIN, json.dumps({"backup": header.id, "node_id": node_id}).encode() + b"\n")
    folder.rename(state_dir / COMPLETE)
    sync_folder(state_dir)


def _origin(state_dir: Path) -> str:
    """The id of the backup that the directory was restored from; empty where it was not, or can't be told."""
    try:
        return str(json.loads((state_dir / ORIGIN).read_bytes())["backup"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _say(header: BackupHeader) -> None:
    made = header.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
    old = [f"{each.node_id} at {each.address}" for each in Membership.decode(header.membership).members.values()]
    log.warning(
        "restored cluster %s as of log entry %d, %s; this manager is the only one, and these are out for good: %s",
        header.cluster_id,
        header.index,
        made,
        ", ".join(old),
    )
    if not header.is_confirmed:
        log.warning("the backup was made without a leader: the newest writes may not be in it")


def _cannot_write(state_dir: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"can't restore into {str(state_dir)!r}: {error.strerror or error}")

"""A node's trust on disk, under SwarmKit's file names; after a kill at any moment it is whole (SwarmKit: 10.1).

Certificate and key are two files and must change together: the certificate is written beside its place, the key is
put in place, then the certificate is renamed. Reading finishes what a kill interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from swarmcore.ca.root import is_sealed, load_certificates, load_key, seal_key, unseal_key
from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.replication.durable import TEMPORARY_SUFFIX, make_folder, replace_file, sync_folder, write_file

ROOT_CERTIFICATE = "swarm-root-ca.crt"
ROOT_KEY = "swarm-root-ca.key"
NODE_CERTIFICATE = "swarm-node.crt"
NODE_KEY = "swarm-node.key"
NEXT_CERTIFICATE = ".swarm-node.crt"
JOIN_REQUEST = ".swarm-join.json"


def what_to_do(folder: Path) -> str:
    """How a node whose `certificates` are damaged comes back."""
    return (
        f"put the files back, or remove this node, empty {str(folder.parent)!r} and join it again; "
        "the only manager of a cluster starts with --restore and a backup"
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JoinAttempt:
    """A first certificate that was asked for and is not there yet. Kept on disk, so that a restart asks on."""

    ca_digest: str
    key_pem: bytes
    csr: bytes
    node_id: str = ""
    """What the manager called this node; empty until it answered."""
    is_vouched: bool = False
    """Whether the node was asked for with a token, or another credential."""


class CertificateFolder:
    """The folder `certificates` of a state directory."""

    def __init__(self, path: Path, find_secret: Callable[[bytes], bytes | None] | None = None) -> None:
        """`find_secret` is asked for what opens the node's private key, which it is given, where that is sealed."""
        self.path = path
        self._find_secret = find_secret
        self._on_disk: bytes | None = None
        self._tried: bytes | None = None

    @property
    def secret(self) -> bytes | None:
        """What the node's private key is sealed with; None: it is in the open."""
        return self._on_disk

    def create(self) -> None:
        """Make the folder, mode 0700; raises ConfigurationError where that is not possible."""
        try:
            make_folder(self.path)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            raise ConfigurationError(f"can't write to {str(self.path)!r}: {error.strerror}") from None

    def read_root(self) -> bytes | None:
        """The trusted root certificate, None before there is one."""
        return self._read(ROOT_CERTIFICATE)

    def read_root_key(self) -> bytes | None:
        """The root's key: there only between the making of a cluster and its first write."""
        return self._read(ROOT_KEY)

    def read_node(self) -> tuple[bytes, bytes] | None:
        """Certificate chain and key of this node, None before there are any.

        Raises DamagedStateError when they do not belong together.
        """
        with self._writing(NODE_CERTIFICATE):
            self._finish_node()
        key, chain = self._read_key(), self._read(NODE_CERTIFICATE)
        if chain is None:
            return None
        if key is None or not _belongs(chain, key):
            raise DamagedStateError(
                f"{str(self._path(NODE_CERTIFICATE))!r} and {NODE_KEY!r} don't belong together: {what_to_do(self.path)}"
            )
        return chain, key

    def write_root(self, certificate: bytes) -> None:
        self._write(ROOT_CERTIFICATE, certificate, 0o644)

    def write_root_key(self, key: bytes) -> None:
        self._write(ROOT_KEY, key, 0o600)

    def write_node(self, chain: bytes, key: bytes, secret: bytes | None = None) -> None:
        """Replace certificate and key together, the key sealed with `secret`."""
        with self._writing(NODE_CERTIFICATE):
            # What a failed try left may be the certificate of the key that is in place.
            self._finish_node()
            write_file(self._path(NEXT_CERTIFICATE), chain, 0o644)
            sync_folder(self.path)
            self._write_key(key, secret)
            self._path(NEXT_CERTIFICATE).rename(self._path(NODE_CERTIFICATE))
            sync_folder(self.path)

    def seal_key(self, secret: bytes) -> None:
        """Keep the node's private key sealed with `secret` from now on."""
        if self._on_disk == secret:
            return
        key = self._read_key()
        if key is not None and not is_sealed(key):
            with self._writing(NODE_KEY):
                self._write_key(key, secret)

    def remove_unfinished(self) -> None:
        """Remove what a kill left of a file that was being written: it may be a key in the open."""
        with self._writing(NODE_KEY):
            for path in self.path.glob("*" + TEMPORARY_SUFFIX):
                path.unlink(missing_ok=True)

    def _write_key(self, key: bytes, secret: bytes | None) -> None:
        # A write that fails late may be in place all the same.
        self._tried = secret
        replace_file(self._path(NODE_KEY), key if secret is None else seal_key(key, secret))
        self._on_disk = secret

    def _read_key(self) -> bytes | None:
        """The node's private key in the open. One that can't be opened comes as it is: it belongs to nothing."""
        key = self._read(NODE_KEY)
        if key is None or not is_sealed(key):
            self._on_disk = None
            return key
        for find in (lambda _: self._on_disk, lambda _: self._tried, self._find_secret):
            secret = find(key) if find is not None else None
            if (opened := _opened(key, secret)) is not None:
                self._on_disk = secret
                return opened
        return key

    def _finish_node(self) -> None:
        """Put a certificate in place whose key is, and remove any other that waits."""
        pending = self._read(NEXT_CERTIFICATE)
        if pending is None:
            return
        key = self._read_key()
        if key is not None and _belongs(pending, key):
            self._path(NEXT_CERTIFICATE).rename(self._path(NODE_CERTIFICATE))
            sync_folder(self.path)
        else:
            self._path(NEXT_CERTIFICATE).unlink()

    def read_join_attempt(self) -> JoinAttempt | None:
        """What was asked for before a restart; None where nothing was, or where it can't be read."""
        raw = self._read(JOIN_REQUEST)
        if raw is None:
            return None
        try:
            fields = json.loads(raw)
            return JoinAttempt(
                ca_digest=str(fields["ca_digest"]),
                key_pem=str(fields["key"]).encode(),
                csr=str(fields["csr"]).encode(),
                node_id=str(fields["node_id"]),
                is_vouched=bool(fields.get("is_vouched")),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def write_join_attempt(self, attempt: JoinAttempt) -> None:
        fields = {
            "ca_digest": attempt.ca_digest,
            "key": attempt.key_pem.decode(),
            "csr": attempt.csr.decode(),
            "node_id": attempt.node_id,
            "is_vouched": attempt.is_vouched,
        }
        self._write(JOIN_REQUEST, json.dumps(fields, indent=1).encode() + b"\n", 0o600)

    def forget_join_attempt(self) -> None:
        with self._writing(JOIN_REQUEST):
            self._path(JOIN_REQUEST).unlink(missing_ok=True)

    def forget_root_key(self) -> None:
        """Remove the root's key; the replicated store keeps it from now on."""
        with self._writing(ROOT_KEY):
            self._path(ROOT_KEY).unlink(missing_ok=True)
            sync_folder(self.path)

    def _path(self, name: str) -> Path:
        return self.path / name

    def _read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"can't read {str(self._path(name))!r}: {error.strerror}") from None

    def _write(self, name: str, data: bytes, mode: int) -> None:
        with self._writing(name):
            replace_file(self._path(name), data, mode)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"can't write {str(self._path(name))!r}: {error.strerror}") from None


def _opened(key: bytes, secret: bytes | None) -> bytes | None:
    try:
        return None if secret is None else unseal_key(key, secret)
    except ConfigurationError:
        return None


def _belongs(chain: bytes, key: bytes) -> bool:
    try:
        certificates: list[x509.Certificate] = load_certificates(chain)
        return certificates[0].public_key() == load_key(key).public_key()
    except (ConfigurationError, ValueError, UnsupportedAlgorithm):
        # A damaged certificate can still be one, with a key that is none.
        return False

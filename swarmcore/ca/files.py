"""A node's trust on disk, under SwarmKit's file names; after a kill at any moment it is whole (SwarmKit: 10.1).

Certificate and key are two files and must change together: the certificate is written beside its place, the key is
put in place, then the certificate is renamed. Reading finishes what a kill interrupted.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from swarmcore.ca.root import load_certificates, load_key
from swarmcore.errors import ConfigurationError, DamagedStateError

ROOT_CERTIFICATE = "swarm-root-ca.crt"
ROOT_KEY = "swarm-root-ca.key"
NODE_CERTIFICATE = "swarm-node.crt"
NODE_KEY = "swarm-node.key"
NEXT_CERTIFICATE = ".swarm-node.crt"
JOIN_REQUEST = ".swarm-join.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAttempt:
    """A first certificate that was asked for and is not there yet. Kept on disk, so that a restart asks on."""

    ca_digest: str
    key_pem: bytes
    csr: bytes
    node_id: str = ""
    """What the manager called this node; empty until it answered."""


class CertificateFolder:
    """The folder `certificates` of a state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder, mode 0700; raises ConfigurationError where that is not possible."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        key = self._read(NODE_KEY)
        pending = self._read(NEXT_CERTIFICATE)
        if pending is not None:
            if key is not None and _belongs(pending, key):
                self._path(NEXT_CERTIFICATE).rename(self._path(NODE_CERTIFICATE))
                _sync(self.path)
            else:
                self._path(NEXT_CERTIFICATE).unlink()
        chain = self._read(NODE_CERTIFICATE)
        if chain is None:
            return None
        if key is None or not _belongs(chain, key):
            raise DamagedStateError(
                f"{str(self._path(NODE_CERTIFICATE))!r} and {NODE_KEY!r} don't belong together: "
                "restore both from a backup, or remove the folder and join again"
            )
        return chain, key

    def write_root(self, certificate: bytes) -> None:
        self._write(ROOT_CERTIFICATE, certificate, 0o644)

    def write_root_key(self, key: bytes) -> None:
        self._write(ROOT_KEY, key, 0o600)

    def write_node(self, chain: bytes, key: bytes) -> None:
        """Replace certificate and key together."""
        _write_file(self._path(NEXT_CERTIFICATE), chain, 0o644)
        _sync(self.path)
        self._write(NODE_KEY, key, 0o600)
        self._path(NEXT_CERTIFICATE).rename(self._path(NODE_CERTIFICATE))
        _sync(self.path)

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
            )
        except (ValueError, KeyError, TypeError):
            return None

    def write_join_attempt(self, attempt: JoinAttempt) -> None:
        fields = {
            "ca_digest": attempt.ca_digest,
            "key": attempt.key_pem.decode(),
            "csr": attempt.csr.decode(),
            "node_id": attempt.node_id,
        }
        self._write(JOIN_REQUEST, json.dumps(fields, indent=1).encode() + b"\n", 0o600)

    def forget_join_attempt(self) -> None:
        self._path(JOIN_REQUEST).unlink(missing_ok=True)

    def forget_root_key(self) -> None:
        """Remove the root's key; the replicated store keeps it from now on."""
        self._path(ROOT_KEY).unlink(missing_ok=True)
        _sync(self.path)

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
        temporary = self._path(name + ".new")
        _write_file(temporary, data, mode)
        temporary.rename(self._path(name))
        _sync(self.path)


def _belongs(chain: bytes, key: bytes) -> bool:
    try:
        certificates: list[x509.Certificate] = load_certificates(chain)
        return certificates[0].public_key() == load_key(key).public_key()
    except ConfigurationError:
        return False


def _write_file(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(descriptor, mode)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(f"can't write {str(path)!r}: {error.strerror}") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

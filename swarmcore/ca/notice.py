"""What a new group of managers tells the members of the old one, signed with the root's key: no one else could say it.

A restored manager is a node that the old group never heard of, so its certificate means nothing there. Whoever holds
the root's key is the cluster.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from swarmcore.api.raft_pb2 import RaftReplacedNotice
from swarmcore.ca.root import load_key

MAX_BYTES = 1024
"""Of each part: nothing that is said here is longer."""
_CONTEXT = b"swarmcore: a group of managers took another one's place 1\0"


def sign_notice(notice: RaftReplacedNotice, cluster_id: str, root_key_pem: bytes) -> None:
    """Put the signature into `notice`. Raises ConfigurationError for what is no key."""
    key, message = load_key(root_key_pem), _message(notice, cluster_id)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        notice.signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    else:
        notice.signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def is_signed(notice: RaftReplacedNotice, cluster_id: str, roots: Sequence[x509.Certificate]) -> bool:
    """Whether the key of one of `roots` signed `notice` for this cluster."""
    if max(len(notice.old_group), len(notice.new_group), len(notice.addr), len(notice.signature)) > MAX_BYTES:
        return False
    message = _message(notice, cluster_id)
    return any(_verifies(root, notice.signature, message) for root in roots)


def _verifies(root: x509.Certificate, signature: bytes, message: bytes) -> bool:
    key = root.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _message(notice: RaftReplacedNotice, cluster_id: str) -> bytes:
    parts = (cluster_id, notice.old_group, notice.new_group, notice.addr)
    # With their lengths, so that no two notices are the same bytes.
    return _CONTEXT + b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)

"""Renewing with an expired certificate: a proof in the place of the token, since TLS refuses the certificate itself.

A node that was off for longer than its certificate lasts is still this cluster's node while the store has it. It sends
its last certificate and signs the new request with that certificate's key. SwarmKit has no such thing: there the node
must be joined again (known failure: a cluster is dead after a long power-off).
"""

from __future__ import annotations

import base64
import binascii
import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from swarmcore.api.objects_pb2 import Node
from swarmcore.ca.root import Identity, RootCA, load_certificates, load_key
from swarmcore.errors import ConfigurationError, PermissionDeniedError

PREFIX = "SWMOLD-1-"
MAX_CHARACTERS = 16 * 1024
_CONTEXT = b"swarmcore renewal with an expired certificate 1\0"


def make_proof(chain_pem: bytes, key_pem: bytes, csr: bytes) -> str:
    """What the node sends in place of a token."""
    key = load_key(key_pem)
    message = _CONTEXT + csr
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    else:
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return f"{PREFIX}{base64.b64encode(chain_pem).decode()}.{base64.b64encode(signature).decode()}"


def read_proof(text: str, *, csr: bytes, root: RootCA, cluster_id: str, now: float) -> tuple[Identity, bytes]:
    """Whose proof it is, and the chain it shows. Raises PermissionDeniedError for one that proves nothing."""
    try:
        chain_text, _, signature_text = text.removeprefix(PREFIX).partition(".")
        chain = base64.b64decode(chain_text, validate=True)
        signature = base64.b64decode(signature_text, validate=True)
        identity = root.check(chain, now=now, allow_expired=True)
        key = load_certificates(chain)[0].public_key()
        message = _CONTEXT + csr
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr,call-arg,arg-type]
    except (binascii.Error, ValueError, TypeError, InvalidSignature, AttributeError, ConfigurationError):
        raise PermissionDeniedError("the expired certificate does not prove who this node is: join it again") from None
    if identity.cluster_id != cluster_id:
        raise PermissionDeniedError(f"node {identity.node_id} belongs to another cluster")
    return identity, chain


def check_last_certificate(node: Node | None, identity: Identity, chain: bytes) -> None:
    """Raises PermissionDeniedError unless `chain` is what this cluster gave the node last."""
    if node is None:
        raise PermissionDeniedError(f"node {identity.node_id} was removed from swarm")
    if not hmac.compare_digest(node.certificate.certificate, chain):
        raise PermissionDeniedError(
            f"the expired certificate of node {identity.node_id} is not its last one: join it again"
        )

"""The root CA: makes itself, signs node certificates, and says what a valid certificate looks like (SwarmKit: 10.1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.errors import ConfigurationError, InvalidArgumentError

ROOT_NAME = "swarm-ca"
MANAGER_OU = "swarm-manager"
WORKER_OU = "swarm-worker"
OU_OF_ROLE = {NodeRole.MANAGER: MANAGER_OU, NodeRole.WORKER: WORKER_OU}
ROLE_OF_OU = {ou: role for role, ou in OU_OF_ROLE.items()}

ROOT_VALIDITY = timedelta(seconds=630_720_000)
DEFAULT_VALIDITY = timedelta(hours=2160)
MIN_VALIDITY = timedelta(hours=1)
BACKDATE = timedelta(hours=1)
MAX_CSR_BYTES = 16 * 1024

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def utc(seconds: float) -> datetime:
    """A moment as X.509 writes it: whole seconds, UTC."""
    return datetime.fromtimestamp(int(seconds), UTC)


def new_key() -> bytes:
    """A fresh ECDSA P-256 key as PKCS#8 PEM."""
    return key_to_pem(ec.generate_private_key(ec.SECP256R1()))


def key_to_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> PrivateKey:
    """Read a private key; raises ConfigurationError for what is none, or a kind that nodes refuse."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError("the private key can't be read: it is no unencrypted PEM key") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)) or not _is_strong(key.public_key()):
        raise ConfigurationError(
            "the private key is neither ECDSA (P-256, P-384, P-521) nor RSA with 2048 bits or more"
        )
    return key


def seal_key(pem: bytes, secret: bytes) -> bytes:
    """The same private key, readable only with `secret`."""
    return load_key(pem).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(secret.hex().encode()),
    )


def is_sealed(pem: bytes) -> bool:
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem


def unseal_key(pem: bytes, secret: bytes) -> bytes:
    """What `seal_key` sealed; raises ConfigurationError for another secret."""
    try:
        key = serialization.load_pem_private_key(pem, secret.hex().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError("the private key can't be opened") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ConfigurationError("the private key is of an unknown kind")
    return key_to_pem(key)


def new_csr(key_pem: bytes) -> bytes:
    """A certificate request that carries the public key and proves that its owner has the private one."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _is_strong(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= 8192
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)


def public_key_of_csr(csr: bytes) -> CertificatePublicKeyTypes:
    """The key that a request asks a certificate for; raises InvalidArgumentError unless the request proves it."""
    if len(csr) > MAX_CSR_BYTES:
        raise InvalidArgumentError(f"the certificate request is larger than {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr)
        key = request.public_key()
        algorithm = request.signature_hash_algorithm
        is_proved = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise InvalidArgumentError("the certificate request can't be read: send it as PEM") from None
    if not _is_strong(key):
        raise InvalidArgumentError("the certificate request's key must be ECDSA P-256, P-384, P-521 or RSA ≥ 2048 bits")
    if not isinstance(algorithm, _HASHES) or not is_proved:
        raise InvalidArgumentError("the certificate request is not signed by its own key with SHA-256 or better")
    return key


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Every certificate of a PEM bundle; raises ConfigurationError when there is none or one can't be read."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError("the certificate can't be read: it is not PEM") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a certificate says its holder is."""

    node_id: str
    role: NodeRole.ValueType
    cluster_id: str


def identity_of(certificate: x509.Certificate) -> Identity:
    """Read CN, OU and O; raises InvalidArgumentError unless each stands there once and the role is known."""
    values: list[str] = []
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        attributes = certificate.subject.get_attributes_for_oid(oid)
        if len(attributes) != 1 or not isinstance(attributes[0].value, str) or not attributes[0].value:
            raise InvalidArgumentError("the certificate does not name one node, one role and one cluster")
        values.append(attributes[0].value)
    role = ROLE_OF_OU.get(values[1])
    if role is None:
        raise InvalidArgumentError(f"the certificate names the unknown role {values[1]!r}")
    return Identity(node_id=values[0], role=role, cluster_id=values[2])


def node_validity(expiry_seconds: float) -> timedelta:
    """How long a node certificate of a cluster with this `node_cert_expiry` lasts from now on."""
    validity = timedelta(seconds=min(expiry_seconds, ROOT_VALIDITY.total_seconds()))
    return validity if validity >= MIN_VALIDITY else DEFAULT_VALIDITY


@dataclass(frozen=True, slots=True)
class Issuer:
    """The certificate above a node's, as a node reports it."""

    subject: bytes
    public_key: bytes


class RootCA:
    """The certificate everyone trusts and, on a manager, the key that signs for it."""

    def __init__(self, certificate_pem: bytes, key_pem: bytes | None = None) -> None:
        """Raises ConfigurationError for what can't be read, and for a key of another certificate."""
        certificates = load_certificates(certificate_pem)
        self.certificate_pem = certificate_pem
        self.key_pem = key_pem
        self.digest = hashlib.sha256(certificate_pem).hexdigest()
        """SHA-256 of the PEM bytes, in hexadecimal."""
        self.certificates = certificates
        self._key = None if key_pem is None else load_key(key_pem)
        signer = certificates[0]
        if self._key is not None and self._key.public_key() != signer.public_key():
            raise ConfigurationError("the root CA's key does not belong to its certificate")
        self._issuer_name = signer.subject
        self._authority_key = _authority_key_identifier(signer)

    def __repr__(self) -> str:
        return f"RootCA(digest={self.digest!r}, can_sign={self.can_sign})"

    @classmethod
    def create(cls, *, now: float) -> RootCA:
        """A new root with a new key, valid for 20 years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(utc(now) - BACKDATE)
            .not_valid_after(utc(now) + ROOT_VALIDITY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(is_ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate.public_bytes(serialization.Encoding.PEM), key_to_pem(key))

    @property
    def can_sign(self) -> bool:
        return self._key is not None

    @property
    def hash(self) -> str:
        """The digest as the cluster object and people see it."""
        return f"sha256:{self.digest}"

    @property
    def issuer(self) -> Issuer:
        """Subject and public key in DER, as a node reports its certificate's issuer."""
        return issuer_of(self.certificates[0])

    def without_key(self) -> RootCA:
        """The same trust without the power to sign."""
        return self if self._key is None else RootCA(self.certificate_pem)

    def sign(
        self,
        public_key: CertificatePublicKeyTypes,
        *,
        node_id: str,
        role: NodeRole.ValueType,
        cluster_id: str,
        now: float,
        validity: timedelta = DEFAULT_VALIDITY,
    ) -> bytes:
        """A certificate chain (PEM) that makes the holder of the key this node in this role.

        The request's other content is not looked at. Raises ConfigurationError when this root has no key.
        """
        if self._key is None:
            raise ConfigurationError("this root CA has no key and can't sign")
        ou = OU_OF_ROLE[role]
        names = [ou, node_id, *([ROOT_NAME] if role == NodeRole.MANAGER else [])]
        certificate = (
            x509.CertificateBuilder(
                issuer_name=self._issuer_name,
                public_key=public_key,
                serial_number=x509.random_serial_number(),
                not_valid_before=utc(now) - BACKDATE,
                not_valid_after=utc(now) + validity + BACKDATE,
            )
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
                        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ou),
                        x509.NameAttribute(NameOID.COMMON_NAME, node_id),
                    ]
                )
            )
            .add_extension(_NODE_KEY_USAGE, critical=True)
            .add_extension(_NODE_EXTENDED_USAGE, critical=False)
            .add_extension(_NO_CA, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._authority_key, critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def check(self, chain_pem: bytes, *, now: float, allow_expired: bool = False) -> Identity:
        """Who a node certificate chain speaks for; raises ConfigurationError unless it is valid under this root."""
        chain = load_certificates(chain_pem)
        leaf = chain[0]
        if not allow_expired:
            if utc(now) < leaf.not_valid_before_utc:
                raise ConfigurationError(
                    f"the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: "
                    "set this machine's clock"
                )
            if utc(now) > leaf.not_valid_after_utc:
                raise ConfigurationError(f"the certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        trusted = list(self.certificates)
        for above in reversed(chain[1:]):
            # A node's own certificate is signed by the root too, and may sign nothing.
            if _is_ca(above) and any(_is_issued_by(above, root) for root in trusted):
                trusted.append(above)
        if not any(_is_issued_by(leaf, root) for root in trusted):
            raise ConfigurationError("the certificate is not signed by the trusted root CA")
        try:
            return identity_of(leaf)
        except InvalidArgumentError as error:
            raise ConfigurationError(str(error)) from None


def issuer_of(certificate: x509.Certificate) -> Issuer:
    """`certificate` as the issuer of another."""
    return Issuer(
        subject=certificate.subject.public_bytes(),
        public_key=certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def normalise(pem: bytes) -> bytes:
    """The bundle in the one spelling that is compared: certificates only, one newline after each."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in load_certificates(pem))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _is_issued_by(certificate: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _authority_key_identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        extension = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_encipherment=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_NODE_KEY_USAGE = _key_usage(is_ca=False)
_NODE_EXTENDED_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
_NO_CA = x509.BasicConstraints(ca=False, path_length=None)

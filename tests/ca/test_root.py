"""What a root CA signs, and what it takes for signed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.root import (
    BACKDATE,
    DEFAULT_VALIDITY,
    Identity,
    PrivateKey,
    RootCA,
    load_key,
    new_csr,
    new_key,
    node_validity,
    public_key_of_csr,
    utc,
)
from swarmcore.errors import ConfigurationError, InvalidArgumentError

NOW = 1_700_000_000.0


def issue(root: RootCA, *, now: float = NOW, validity: timedelta = timedelta(hours=2)) -> bytes:
    key = public_key_of_csr(new_csr(new_key()))
    return root.sign(key, node_id="n", role=NodeRole.WORKER, cluster_id="c", now=now, validity=validity)


@pytest.fixture(scope="module")
def root() -> RootCA:
    return RootCA.create(now=NOW)


def test_what_it_signed_it_takes_for_its_own(root: RootCA) -> None:
    assert root.without_key().check(issue(root), now=NOW) == Identity(node_id="n", role=NodeRole.WORKER, cluster_id="c")


def test_what_another_signed_it_does_not(root: RootCA) -> None:
    with pytest.raises(ConfigurationError, match="not signed by the trusted root CA"):
        root.check(issue(RootCA.create(now=NOW)), now=NOW)


@pytest.mark.parametrize(("now", "why"), [(NOW + 4 * 3600, "expired on"), (NOW - 2 * 3600, "set this machine's clock")])
def test_a_certificate_outside_its_time_says_so(root: RootCA, now: float, why: str) -> None:
    chain = issue(root)

    with pytest.raises(ConfigurationError, match=why):
        root.check(chain, now=now)
    assert root.check(chain, now=now, allow_expired=True).node_id == "n"


def test_a_clock_that_is_an_hour_behind_takes_a_fresh_certificate(root: RootCA) -> None:
    assert root.check(issue(root), now=NOW - BACKDATE.total_seconds()).node_id == "n"


def signed_by(above: x509.Certificate, key: PrivateKey, *, is_ca: bool) -> tuple[x509.Certificate, PrivateKey]:
    """A certificate below `above` that claims to be the node `n`, and its key."""
    own = ec.generate_private_key(ec.SECP256R1())
    names = (
        (NameOID.ORGANIZATION_NAME, "c"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager"),
        (NameOID.COMMON_NAME, "n"),
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in names]))
        .issuer_name(above.subject)
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(utc(NOW - 60))
        .not_valid_after(utc(NOW + 3600))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, own


def test_an_intermediate_of_the_root_may_sign(root: RootCA) -> None:
    assert root.key_pem is not None
    middle, key = signed_by(root.certificates[0], load_key(root.key_pem), is_ca=True)
    leaf, _ = signed_by(middle, key, is_ca=False)

    assert root.check(pem(leaf, middle), now=NOW).node_id == "n"


def test_a_nodes_certificate_may_sign_nothing(root: RootCA) -> None:
    assert root.key_pem is not None
    node, key = signed_by(root.certificates[0], load_key(root.key_pem), is_ca=False)
    forged, _ = signed_by(node, key, is_ca=False)

    with pytest.raises(ConfigurationError, match="not signed by the trusted root CA"):
        root.check(pem(forged, node), now=NOW)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def test_a_root_without_its_key_can_not_sign(root: RootCA) -> None:
    with pytest.raises(ConfigurationError, match="can't sign"):
        issue(root.without_key())


def test_the_key_of_another_root_is_refused(root: RootCA) -> None:
    with pytest.raises(ConfigurationError, match="does not belong to its certificate"):
        RootCA(root.certificate_pem, RootCA.create(now=NOW).key_pem)


def test_the_key_is_never_shown(root: RootCA) -> None:
    assert root.key_pem is not None
    assert "PRIVATE" not in repr(root)


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 1024)])
def test_a_weak_or_unknown_key_is_refused(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)

    with pytest.raises(InvalidArgumentError, match="key must be"):
        public_key_of_csr(csr.public_bytes(serialization.Encoding.PEM))


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(new_csr(new_key())).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    try:
        csr = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    except ValueError:
        pytest.skip("the changed byte broke the encoding, which is refused earlier")

    with pytest.raises(InvalidArgumentError):
        public_key_of_csr(csr)


def test_stronger_curves_are_welcome() -> None:
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    assert public_key_of_csr(new_csr(pem)) == load_key(pem).public_key()


@pytest.mark.parametrize(
    ("seconds", "validity"), [(0, DEFAULT_VALIDITY), (3599, DEFAULT_VALIDITY), (7200, timedelta(hours=2))]
)
def test_a_life_under_an_hour_falls_back_to_the_default(seconds: float, validity: timedelta) -> None:
    assert node_validity(seconds) == validity

"""What the control service gets from the CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Cluster
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.cluster_ops import CAClusterOps
from swarmcore.ca.root import RootCA
from swarmcore.ca.security import SecurityConfig
from swarmcore.ca.tokens import parse_join_token
from swarmcore.controlapi.cluster_ops import ClusterOps
from swarmcore.errors import InvalidArgumentError, UnimplementedError

NOW = 1_700_000_000.0
ROOT = RootCA.create(now=NOW)


def cluster() -> Cluster:
    made = Cluster(id="c")
    made.root_ca.ca_cert = ROOT.certificate_pem
    made.root_ca.ca_key = ROOT.key_pem or b""
    made.root_ca.last_forced_rotation = 3
    made.spec.ca_config.force_rotate = 3
    return made


def spec(**ca_config: object) -> ClusterSpec:
    made = ClusterSpec()
    made.ca_config.force_rotate = 3
    for name, value in ca_config.items():
        setattr(made.ca_config, name, value)
    return made


def test_it_is_what_the_control_service_asks_for() -> None:
    ops: ClusterOps = CAClusterOps()

    assert len(ops.new_unlock_key()) == 32


@pytest.mark.parametrize("role", [NodeRole.WORKER, NodeRole.MANAGER])
def test_a_fresh_token_names_the_clusters_root(role: NodeRole.ValueType) -> None:
    first, second = (CAClusterOps().rotate_join_token(cluster(), role) for _ in range(2))

    assert parse_join_token(first).ca_digest == ROOT.digest
    assert first != second


async def test_a_cluster_whose_ca_settings_stay_keeps_its_root() -> None:
    before = cluster()

    assert await CAClusterOps().plan_root_ca(before, spec()) == before.root_ca
    assert await CAClusterOps().plan_root_ca(before, spec(signing_ca_cert=ROOT.certificate_pem)) == before.root_ca
    assert before == cluster()


async def test_the_key_of_the_current_root_can_be_given_back() -> None:
    locked = cluster()
    locked.root_ca.ca_key = b""
    wanted = spec(signing_ca_cert=ROOT.certificate_pem, signing_ca_key=ROOT.key_pem)

    assert (await CAClusterOps().plan_root_ca(locked, wanted)).ca_key == ROOT.key_pem


@pytest.mark.parametrize(
    ("ca_config", "why"),
    [
        ({"signing_ca_key": b"k"}, "signing_ca_key is given without signing_ca_cert"),
        ({"signing_ca_cert": b"garbage"}, "signing_ca_cert: the certificate can't be read"),
        (
            {"signing_ca_cert": ROOT.certificate_pem, "signing_ca_key": RootCA.create(now=NOW).key_pem},
            "does not belong to its certificate",
        ),
    ],
)
async def test_what_can_be_no_root_is_refused_with_the_fields_name(ca_config: dict[str, bytes], why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        await CAClusterOps().plan_root_ca(cluster(), spec(**ca_config))


@pytest.mark.parametrize(
    "ca_config", [{"force_rotate": 4}, {"signing_ca_cert": RootCA.create(now=NOW).certificate_pem}]
)
async def test_a_rotation_is_refused_and_said_so(ca_config: dict[str, object]) -> None:
    with pytest.raises(UnimplementedError, match="rotating the root CA is not supported yet"):
        await CAClusterOps().plan_root_ca(cluster(), spec(**ca_config))


def test_another_root_is_trusted_only_where_it_signed_this_node(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path)
    both = security.root.certificate_pem + ROOT.certificate_pem

    with pytest.raises(Exception, match="not signed by the trusted root CA"):
        security.install_root(ROOT.certificate_pem)
    security.install_root(both)

    loaded = SecurityConfig.load(tmp_path)
    assert loaded is not None and loaded.root.certificate_pem == both

"""Each policy by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarmcore_acceptance_policies.policies import Auto, Manual, Token
from swarmcore_acceptance_policies.psk import PreSharedKey, PreSharedKeyJoin, credential
from swarmcore_acceptance_policies.rules import choose, split

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.plugin.acceptance import Abstain, Accept, JoinRequest, Pending, Reject
from swarmcore.plugin.loader import load

WORKER, MANAGER = NodeRole.WORKER, NodeRole.MANAGER
WORKER_TOKEN = "SWMTKN-1-digest-worker"  # noqa: S105 - no secret
MANAGER_TOKEN = "SWMTKN-1-digest-manager"  # noqa: S105 - no secret
KEY = "a-key-that-is-long-enough"


def request(
    token: str = "",
    config: str = "",
    *,
    address: str = "10.1.2.3",
    role: NodeRole.ValueType | None = None,
    csr: bytes = b"c",
) -> JoinRequest:
    return JoinRequest(
        token=token,
        csr=csr,
        remote_addr=address,
        cluster_id="c",
        ca_digest="d",
        worker_token=WORKER_TOKEN,
        manager_token=MANAGER_TOKEN,
        requested_role=role,
        config=config,
    )


def test_the_loader_finds_all_four() -> None:
    loaded = load(role="manager")

    assert {"token", "auto", "manual", "psk"} <= set(loaded.acceptance)
    assert "psk" in loaded.join_methods


@pytest.mark.parametrize(
    ("token", "config", "role"),
    [
        (WORKER_TOKEN, "", WORKER),
        (MANAGER_TOKEN, "", MANAGER),
        (WORKER_TOKEN, "worker", WORKER),
        (MANAGER_TOKEN, "worker", None),
        (WORKER_TOKEN, "manager", None),
        (WORKER_TOKEN, "off", None),
        (WORKER_TOKEN + "x", "", None),
        (WORKER_TOKEN[:-1], "", None),
        ("SWMTKN-", "", None),
    ],
)
async def test_a_join_token_stands_for_its_role(token: str, config: str, role: NodeRole.ValueType | None) -> None:
    verdict = await Token().evaluate(request(token, config))

    expected = Reject("A valid join token is necessary to join this cluster") if role is None else Accept(role)
    assert verdict == expected


@pytest.mark.parametrize("token", ["", "SWMPSK-1-00", "anything"])
async def test_what_is_no_join_token_is_not_the_token_policys_business(token: str) -> None:
    assert await Token().evaluate(request(token)) == Abstain()


async def test_an_empty_token_of_the_cluster_lets_nobody_in() -> None:
    empty = JoinRequest(
        token="SWMTKN-",  # noqa: S106 - no secret
        csr=b"",
        remote_addr="",
        cluster_id="",
        ca_digest="",
        worker_token="",
        manager_token="",
    )

    assert isinstance(await Token().evaluate(empty), Reject)


@pytest.mark.parametrize(
    ("config", "address", "role", "verdict"),
    [
        ("", "10.1.2.3", None, Accept(WORKER)),
        ("", "10.1.2.3", MANAGER, Accept(WORKER)),
        ("manager", "10.1.2.3", None, Accept(MANAGER)),
        ("worker,manager", "10.1.2.3", WORKER, Accept(WORKER)),
        ("worker,manager", "10.1.2.3", MANAGER, Accept(MANAGER)),
        ("10.0.0.0/8", "10.1.2.3", None, Accept(WORKER)),
        ("192.168.0.0/16, 10.1.2.3", "10.1.2.3", None, Accept(WORKER)),
        ("192.168.0.0/16", "10.1.2.3", None, Abstain()),
        ("fd00::/8", "10.1.2.3", None, Abstain()),
        ("fd00::/8", "fd00::1", None, Accept(WORKER)),
        ("10.0.0.0/8", "", None, Abstain()),
    ],
)
async def test_auto_accepts_its_roles_from_its_networks(
    config: str, address: str, role: NodeRole.ValueType | None, verdict: object
) -> None:
    assert await Auto().evaluate(request("", config, address=address, role=role)) == verdict


async def test_auto_says_nothing_about_a_node_with_a_token() -> None:
    assert await Auto().evaluate(request("SWMTKN-wrong")) == Abstain()


async def test_a_network_that_is_none_is_an_error_and_no_accept() -> None:
    with pytest.raises(ValueError, match="network"):
        await Auto().evaluate(request("", "10.0.0.0/64"))


async def test_manual_lets_nodes_without_a_token_wait() -> None:
    assert isinstance(await Manual().evaluate(request()), Pending)
    assert await Manual().evaluate(request("x")) == Abstain()


def test_who_may_grant_what() -> None:
    assert Token().may_grant == {WORKER, MANAGER}
    assert Auto().may_grant == PreSharedKey().may_grant == {WORKER}
    assert Manual().may_grant == frozenset()


async def test_the_key_holder_gets_the_role_that_it_proved() -> None:
    for role, config, verdict in (
        (WORKER, KEY, Accept(WORKER)),
        (MANAGER, f"worker,manager,{KEY}", Accept(MANAGER)),
        (WORKER, f"worker,manager,{KEY}", Accept(WORKER)),
    ):
        token = PreSharedKeyJoin().credential(csr=b"c", ca_digest="d", role=role, secret=KEY)
        assert KEY not in token
        assert await PreSharedKey().evaluate(request(token, config)) == verdict


async def test_a_role_that_the_key_does_not_stand_for_is_rejected() -> None:
    token = credential(csr=b"c", ca_digest="d", role=MANAGER, secret=KEY)

    assert isinstance(await PreSharedKey().evaluate(request(token, KEY)), Reject)


@given(st.binary(max_size=30), st.text(max_size=10), st.text(min_size=16, max_size=40))
def test_a_credential_is_bound_to_request_root_and_key(csr: bytes, digest: str, key: str) -> None:
    base = credential(csr=b"c", ca_digest="d", role=WORKER, secret=KEY)

    other = credential(csr=csr, ca_digest=digest, role=WORKER, secret=key)

    assert (other == base) == ((csr, digest, key) == (b"c", "d", KEY))


async def test_a_replay_for_another_request_is_rejected() -> None:
    token = credential(csr=b"mine", ca_digest="d", role=WORKER, secret=KEY)

    assert isinstance(await PreSharedKey().evaluate(request(token, KEY, csr=b"theirs")), Reject)


async def test_the_key_can_be_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    token = PreSharedKeyJoin().credential(csr=b"c", ca_digest="d", role=WORKER, secret=f"@{path}")

    assert await PreSharedKey().evaluate(request(token, f"@{path}")) == Accept(WORKER)


@pytest.mark.parametrize("config", ["", "worker", "short", "two-keys-of-length,another-key-of-length"])
async def test_a_key_that_is_missing_or_weak_is_an_error_and_no_accept(config: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await PreSharedKey().evaluate(request("SWMPSK-1-00", config))


def test_a_configuration_is_words_between_commas() -> None:
    assert split(" worker, 10.0.0.0/8,,manager ") == (frozenset({WORKER, MANAGER}), ["10.0.0.0/8"])
    assert choose({MANAGER}, WORKER) == MANAGER
    assert choose({WORKER, MANAGER}, None) == WORKER

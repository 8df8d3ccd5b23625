"""A node's way into a cluster, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca import joining
from swarmcore.ca.acceptance import Link
from swarmcore.ca.files import CertificateFolder, JoinAttempt
from swarmcore.ca.security import SecurityConfig
from swarmcore.ca.server import MAX_WAITING_OF_ADDRESS
from swarmcore.ca.tokens import new_join_token
from swarmcore.errors import ConfigurationError, DamagedStateError
from swarmcore.plugin.loader import load
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.store.changes import Commit
from swarmcore.store.store import Store
from swarmcore.testing.trust import trusted_manager


@dataclass(frozen=True)
class Rule:
    policy: str
    config: str = ""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PAUSE_SECONDS", 0.01)


async def _first_node(changes: Any) -> str:
    commit = await changes.get()
    assert isinstance(commit, Commit)
    return commit.changes[0].id


def _nodes(store: Store) -> int:
    return len(store.view.node)


@pytest.mark.parametrize("role", [NodeRole.WORKER, NodeRole.MANAGER])
async def test_a_token_gives_a_node_its_role(tmp_path: Path, role: NodeRole.ValueType) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        joined = await SecurityConfig.join(
            tmp_path / "n", manager.address, manager.token(role), availability=NodeSpec.DRAIN
        )
        node = manager.store.view.node.get(joined.node_id)

    assert node is not None and node.role == node.spec.desired_role == joined.role == role
    assert node.spec.availability == NodeSpec.DRAIN and node.spec.membership == NodeSpec.ACCEPTED
    assert joined.cluster_id == manager.security.cluster_id
    loaded = SecurityConfig.load(tmp_path / "n")
    assert loaded is not None and loaded.node_id == joined.node_id


async def test_a_node_without_a_token_waits_until_it_is_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        with manager.store.subscribe(("node",)) as changes:
            joining_node = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
            node_id = await _first_node(changes)
            waiting = manager.store.view.node.get(node_id)
            assert waiting is not None and waiting.spec.membership == NodeSpec.PENDING
            assert waiting.status.addr == "127.0.0.1" and "waits to be accepted" in waiting.status.message
            await manager.accept(node_id)
            joined = await joining_node

    assert joined.node_id == node_id and joined.role == NodeRole.WORKER
    assert f"swarmctl node accept {node_id}" in caplog.text


async def test_a_rejected_node_is_told(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        with manager.store.subscribe(("node",)) as changes:
            joining_node = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
            await manager.remove(await _first_node(changes))

            with pytest.raises(ConfigurationError, match="the cluster rejected this node"):
                await joining_node


async def test_a_node_killed_while_it_waits_asks_on_and_makes_no_second_node(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        with manager.store.subscribe(("node",)) as changes:
            first = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
            node_id = await _first_node(changes)
            files = CertificateFolder(tmp_path / "n")
            async with asyncio.timeout(10):
                while (attempt := files.read_join_attempt()) is None or not attempt.node_id:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            second = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
            await manager.accept(node_id)
            joined = await second
            nodes = _nodes(manager.store)

    assert joined.node_id == node_id and nodes == 2
    assert files.read_join_attempt() is None


async def test_a_node_that_waits_and_is_started_again_with_a_token_joins(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        with manager.store.subscribe(("node",)) as changes:
            first = asyncio.create_task(SecurityConfig.join(tmp_path / "n", manager.address, ""))
            node_id = await _first_node(changes)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

        joined = await asyncio.wait_for(SecurityConfig.join(tmp_path / "n", manager.address, manager.token()), 20)
        nodes = _nodes(manager.store)

    assert joined.node_id == node_id and nodes == 2


async def test_a_node_killed_between_request_and_answer_makes_no_second_node(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        token = manager.token()
        first = await SecurityConfig.join(tmp_path / "n", manager.address, token)
        # What the disk holds when the answer never arrived: the request, and no node id.
        files = CertificateFolder(tmp_path / "n")
        csr = manager.store.view.node.get(first.node_id).certificate.csr  # type: ignore[union-attr]
        files.write_join_attempt(JoinAttempt(ca_digest=first.root.digest, key_pem=first.material.key_pem, csr=csr))
        for name in ("swarm-node.crt", "swarm-node.key"):
            (files.path / name).unlink()

        second = await SecurityConfig.join(tmp_path / "n", manager.address, token)
        nodes = _nodes(manager.store)

    assert second.node_id == first.node_id and nodes == 2


async def test_a_cluster_that_was_begun_and_never_ran_is_no_root_to_trust(tmp_path: Path) -> None:
    begun = SecurityConfig.create_cluster(tmp_path / "n")
    for name in ("swarm-node.crt", "swarm-node.key"):
        (tmp_path / "n" / name).unlink()
    async with trusted_manager(tmp_path / "m", acceptance=[Link("auto")]) as manager:
        joined = await SecurityConfig.join(tmp_path / "n", manager.address, "")

    assert joined.root.digest == manager.security.root.digest != begun.root.digest
    assert joined.root_with_key is None
    assert not (tmp_path / "n" / "swarm-root-ca.key").exists()


async def test_a_wrong_token_is_refused_in_one_line(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        wrong = new_join_token(manager.security.root.digest)
        with pytest.raises(ConfigurationError) as caught:
            await SecurityConfig.join(tmp_path / "n", manager.address, wrong)
        nodes = _nodes(manager.store)

    assert "A valid join token is necessary to join this cluster" in str(caught.value)
    assert "\n" not in str(caught.value) and wrong not in str(caught.value)
    assert nodes == 1


async def test_a_token_of_another_cluster_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager, trusted_manager(tmp_path / "other") as other:
        with pytest.raises(ConfigurationError, match="has another root CA than the join token names"):
            await SecurityConfig.join(tmp_path / "n", manager.address, other.token())

    assert CertificateFolder(tmp_path / "n").read_root() is None


async def test_a_manager_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigurationError, match=f"can't reach a manager at {address}") as caught:
        await SecurityConfig.join(tmp_path / "n", address, "")

    assert "\n" not in str(caught.value)


async def test_something_else_on_the_port_is_no_manager(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ConfigurationError, match="can't reach a manager"):
            await SecurityConfig.join(tmp_path / "n", f"127.0.0.1:{port}", "")


@pytest.mark.parametrize("address", ["", "host", "host:", ":4242", "host:0", "host:99999", "host:4x"])
async def test_an_address_that_can_be_none_is_a_configuration_error(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigurationError, match="no address of a manager"):
        await SecurityConfig.join(tmp_path / "n", address, "")


@pytest.mark.parametrize("token", ["SWMTKN-1-short", "nonsense", "SWMTKN-9-a-b", "psk:"])
async def test_a_malformed_token_is_never_sent_nor_repeated(tmp_path: Path, token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await SecurityConfig.join(tmp_path / "n", "127.0.0.1:1", token)

    assert token not in str(caught.value)


async def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="can't write to"):
        await SecurityConfig.join(tmp_path / "file" / "n", "127.0.0.1:1", "")


async def test_auto_accepts_a_node_without_a_token(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m", acceptance=[Rule("auto", "127.0.0.0/8")]) as manager:
        joined = await SecurityConfig.join(tmp_path / "n", manager.address, "")
        as_manager = await SecurityConfig.join(tmp_path / "k", manager.address, manager.token(NodeRole.MANAGER))

    assert joined.role == NodeRole.WORKER
    assert as_manager.role == NodeRole.MANAGER


async def test_a_pre_shared_key_lets_in_who_holds_it(tmp_path: Path) -> None:
    methods = load(role="worker").join_methods
    rules = [Rule("psk", "worker,manager,a-key-of-the-cluster")]
    async with trusted_manager(tmp_path / "m", acceptance=rules) as manager:
        joined = await SecurityConfig.join(
            tmp_path / "n", manager.address, "psk:manager,a-key-of-the-cluster", join_methods=methods
        )
        with pytest.raises(ConfigurationError, match="the pre-shared key is not this cluster's"):
            await SecurityConfig.join(
                tmp_path / "k", manager.address, "psk:another-key-altogether", join_methods=methods
            )

    assert joined.role == NodeRole.MANAGER


async def test_a_core_without_policies_lets_nobody_in(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m", plugins=PluginSet()) as manager:
        with pytest.raises(ConfigurationError, match="acceptance/token is not available"):
            await SecurityConfig.join(tmp_path / "n", manager.address, manager.token())


async def test_only_so_many_nodes_of_one_address_may_wait(tmp_path: Path) -> None:
    async with trusted_manager(tmp_path / "m") as manager:
        with manager.store.subscribe(("node",)) as changes:
            waiting = []
            for number in range(MAX_WAITING_OF_ADDRESS):
                waiting.append(asyncio.create_task(SecurityConfig.join(tmp_path / str(number), manager.address, "")))
                await _first_node(changes)
            with pytest.raises(ConfigurationError, match="wait to be accepted already"):
                await SecurityConfig.join(tmp_path / "n", manager.address, "")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def test_a_kill_between_key_and_certificate_is_repaired(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path / "a")
    other = SecurityConfig.create_cluster(tmp_path / "b")
    files = CertificateFolder(tmp_path / "a")
    chain, key = other.material.chain_pem, other.material.key_pem

    # Before the key was replaced: the old pair counts.
    (files.path / ".swarm-node.crt").write_bytes(chain)
    assert files.read_node() == (security.material.chain_pem, security.material.key_pem)
    # After it: the new one.
    (files.path / ".swarm-node.crt").write_bytes(chain)
    (files.path / "swarm-node.key").write_bytes(key)
    assert files.read_node() == (chain, key)
    assert not (files.path / ".swarm-node.crt").exists()


def test_files_have_swarmkits_names_and_modes(tmp_path: Path) -> None:
    security = SecurityConfig.create_cluster(tmp_path / "certificates")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "certificates").iterdir()}
    security.forget_root_key()

    assert modes == {
        "swarm-root-ca.crt": 0o644,
        "swarm-root-ca.key": 0o600,
        "swarm-node.crt": 0o644,
        "swarm-node.key": 0o600,
    }
    assert not (tmp_path / "certificates" / "swarm-root-ca.key").exists() and security.root_with_key is None


def test_a_cluster_whose_making_was_cut_short_is_made_with_the_same_root(tmp_path: Path) -> None:
    first = SecurityConfig.create_cluster(tmp_path)
    (tmp_path / "swarm-node.crt").unlink()

    assert SecurityConfig.load(tmp_path) is None
    assert SecurityConfig.create_cluster(tmp_path).root.digest == first.root.digest


@pytest.mark.parametrize("name", ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"])
def test_a_damaged_folder_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    SecurityConfig.create_cluster(tmp_path)
    (tmp_path / name).write_text("garbage")

    with pytest.raises((DamagedStateError, ConfigurationError)) as caught:
        SecurityConfig.load(tmp_path)
    assert "\n" not in str(caught.value)

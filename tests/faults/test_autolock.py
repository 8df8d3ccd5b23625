"""Managers that are locked: what each has on its disk opens with the cluster's unlock key, and with nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from cryptography import x509

from swarmcore.cli.unlock_key import parse_unlock_key
from swarmcore.errors import ConfigurationError
from swarmcore.replication.keys import KeyRing
from swarmcore.testing.cluster import Swarmd, wait_until
from swarmcore.testing.faults import refused_start
from swarmcore.testing.machines import Machines, rows

KEY = re.compile(r"SWMKEY-1-[A-Za-z0-9+/]{43}")
LOCKED = "Error: node is locked, and needs a valid unlock key"
ROUNDS = int(os.environ.get("AUTOLOCK_KILLS", "4"))


@dataclass(slots=True)
class Managers(Machines):
    """Three managers on loopback, which can be locked, killed and started with a key."""

    seen: set[str] = field(default_factory=set)
    """Every unlock key that there was."""
    seen_tokens: set[str] = field(default_factory=set)

    def found(self, *flags: str) -> Swarmd:
        """Start the first one."""
        return self.add("m1", *flags)

    def one_more(self, *, role: str = "manager", ready: bool = True) -> Swarmd:
        """Start one more node."""
        self.seen_tokens.add(self.token("m1", role))
        return self.join(f"m{len(self.nodes) + 1}", role, by="m1", ready=ready)

    def three(self, *flags: str) -> Sequence[Swarmd]:
        """Start all three, and return when they agree on who there is."""
        self.found(*flags)
        self.one_more()
        self.one_more()
        self.wait_agreed(3)
        return list(self.nodes.values())

    def key(self, by: Swarmd, *flags: str) -> str:
        """The unlock key as a manager prints it."""
        (key,) = KEY.findall(by.swarmctl("cluster", "unlock-key", *flags))
        self.seen.add(key)
        return str(key)

    def key_now(self, by: Swarmd) -> str | None:
        """The unlock key that is agreed, once somebody leads."""

        def printed() -> str | None:
            done = by.swarmctl.run("cluster", "unlock-key", "-q")
            assert done.returncode == 0, done.stderr
            return done.stdout.decode().strip() or None

        key = wait_until(printed)
        self.seen |= {key} if key else set()
        return key

    def lock(self, by: Swarmd) -> str:
        (key,) = KEY.findall(by.swarmctl("cluster", "update", "--autolock"))
        self.seen.add(key)
        return str(key)

    def wait_opens(self, key: str | None, *nodes: Swarmd) -> None:
        """Return when the disk of each opens with this, and with nothing else."""

        def opened() -> None:
            for node in nodes or self.nodes.values():
                assert opens(node, key), f"{node.folder.name} does not open"
                assert key is None or not opens(node, None), f"{node.folder.name} is not locked"

        wait_until(opened)

    def wait_replaced(self, *nodes: Swarmd) -> None:
        """Return when nothing is in use that stood on the disk in the open before it was locked."""

        def replaced() -> None:
            for node in nodes or self.nodes.values():
                assert key_file(node)["exposed"] in ([], [1]), key_file(node)["exposed"]

        wait_until(replaced)

    def restart_with(self, node: Swarmd, key: str | None) -> None:
        """Kill it and start it with this key."""
        node.kill()
        with given(node, key):
            node.start()
            node.wait_ready()

    def check_nothing_leaked(self) -> None:
        """No key stands in a log, or in the arguments of a process."""
        secrets = {key.removeprefix("SWMKEY-1-") for key in self.seen}
        secrets |= {form for key in self.seen for form in _forms(parse_unlock_key(key) or b"")}
        for node in self.nodes.values():
            assert not [secret for secret in secrets if secret in node.log], node.log_file
            if node.is_running:
                arguments = Path(f"/proc/{node.pid}/cmdline").read_text()
                assert not [each for each in self.seen | self.seen_tokens if each in arguments]
            assert "PRIVATE KEY" not in node.log and "SWMTKN-" not in node.log
            assert "Traceback" not in node.log, node.log[-3000:]


def _forms(secret: bytes) -> tuple[str, ...]:
    """How bytes are written by those who don't mean to write them."""
    return secret.hex(), repr(secret)[2:-1]


@contextlib.contextmanager
def given(node: Swarmd, key: str | None) -> Iterator[None]:
    """While it is started: its unlock key in a file, which is gone afterwards."""
    path = node.folder / "unlock-key"
    flags = node.flags
    if key is not None:
        path.write_text(key + "\n")
        node.flags = (*flags, "--unlock-key-file", str(path))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        node.flags = flags


def node_id(of: Swarmd, by: Swarmd) -> str:
    return next(row["id"] for row in rows(by) if row["name"] == of.folder.name)


def leader(nodes: Sequence[Swarmd]) -> Swarmd:
    def found() -> Swarmd:
        for node in nodes:
            if node.is_running:
                for row in rows(node):
                    if row["leader"] == "True":
                        return next(each for each in nodes if each.folder.name == row["name"])
        raise AssertionError("nobody leads")

    return wait_until(found)


def follower(nodes: Sequence[Swarmd]) -> Swarmd:
    leads = leader(nodes)
    return next(node for node in nodes if node is not leads)


def key_file(node: Swarmd) -> dict[str, object]:
    found: dict[str, object] = json.loads((node.state_dir / "raft" / "keys.json").read_bytes())
    return found


def opens(node: Swarmd, key: str | None) -> bool:
    try:
        KeyRing.open(node.state_dir / "raft" / "keys.json", parse_unlock_key(key or ""))
    except ConfigurationError:
        return False
    return True


def disk(folder: Path) -> dict[str, str]:
    """What each file in a folder holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def managers(folder: Path) -> Iterator[Managers]:
    all_of_them = Managers(folder)
    try:
        yield all_of_them
        all_of_them.check_nothing_leaked()
    finally:
        all_of_them.stop()


def test_a_lock_a_rotation_and_an_unlock_reach_every_manager(managers: Managers) -> None:
    nodes = managers.three()
    first = managers.lock(follower(nodes))
    managers.wait_opens(first)
    managers.wait_replaced()
    for node in nodes:
        assert b"ENCRYPTED" in (node.state_dir / "certificates" / "swarm-node.key").read_bytes()

    second = managers.key(follower(nodes), "--rotate")
    assert second == managers.key(nodes[0], "-q") != first
    managers.wait_opens(second)
    for node in nodes:
        managers.restart_with(node, second)
        managers.wait_agreed(3)

    leader(nodes).swarmctl("cluster", "update", "--no-autolock")
    managers.wait_opens(None)
    for node in nodes:
        managers.restart_with(node, None)
    managers.wait_agreed(3)


def test_who_becomes_a_manager_of_a_locked_cluster_is_locked_from_its_first_start(managers: Managers) -> None:
    founder = managers.found("--autolock")
    key = managers.key(founder)
    managers.wait_opens(key, founder)
    by_token = managers.one_more(ready=False)
    promoted = managers.one_more(role="worker")
    founder.swarmctl("node", "promote", node_id(promoted, founder))

    for node in (by_token, promoted):
        raft = node.state_dir / "raft" / "keys.json"

        def is_there(path: Path = raft) -> None:
            assert path.exists()

        wait_until(is_there)
        assert opens(node, key) and not opens(node, None)
    managers.wait_agreed(3)
    managers.wait_replaced()
    for node in (by_token, promoted):
        node.kill()
        assert LOCKED in refused_start("-d", str(node.state_dir), "--listen-control-api", str(node.socket), *node.flags)
        with given(node, key):
            node.start()
            node.wait_ready()
    managers.wait_agreed(3)


def test_a_wrong_key_is_refused_in_one_line_and_changes_nothing(managers: Managers) -> None:
    node = managers.found("--autolock")
    key = managers.key(node)
    managers.wait_opens(key)
    managers.wait_replaced()
    assert node.stop() == 0
    before = disk(node.state_dir)
    wrong = "SWMKEY-1-" + "A" * 43
    flags = ("-d", str(node.state_dir), "--listen-control-api", str(node.socket), *node.flags)

    for more in ((), ("--unlock-key", wrong)):
        complaint = refused_start(*flags, *more)
        assert complaint.startswith(LOCKED) and wrong not in complaint
        assert disk(node.state_dir) == before

    with given(node, key):
        node.start()
        node.wait_ready()


def test_a_manager_that_was_away_for_two_rotations_opens_with_the_key_it_was_locked_with(managers: Managers) -> None:
    nodes = managers.three("--autolock")
    first = managers.key(nodes[0])
    managers.wait_opens(first)
    managers.wait_replaced()
    away = follower(nodes)
    away.kill()
    rest = [node for node in nodes if node is not away]
    second = managers.key(rest[0], "--rotate")
    third = managers.key(rest[1], "--rotate")
    managers.wait_opens(third, *rest)

    assert opens(away, first) and not opens(away, second)
    with given(away, first):
        away.start()
        away.wait_ready()
    managers.wait_opens(third)


def test_a_demoted_manager_keeps_no_secret_and_restarts_without_a_key(managers: Managers) -> None:
    nodes = managers.three("--autolock")
    key = managers.key(nodes[0])
    managers.wait_opens(key)
    managers.wait_replaced()
    for node, by in ((follower(nodes), leader(nodes)), (leader(nodes), follower(nodes))):
        by.swarmctl("node", "demote", node_id(node, by))
        has_left(node)
        managers.restart_with(node, None)
        by.swarmctl("node", "promote", node_id(node, by))
        managers.wait_agreed(3)
        managers.wait_opens(key, node)


def test_a_manager_that_was_demoted_while_it_was_away_opens_once_more_and_is_a_worker(managers: Managers) -> None:
    nodes = managers.three("--autolock")
    key = managers.key(nodes[0])
    managers.wait_opens(key)
    managers.wait_replaced()
    away = follower(nodes)
    by = leader(nodes)
    id = node_id(away, by)
    away.kill()
    by.swarmctl("node", "demote", id)
    managers.wait_agreed(2)

    with given(away, key):
        away.start()
        has_left(away)
    managers.restart_with(away, None)


def has_left(node: Swarmd) -> None:
    """Return when a node has nothing of a manager left on its disk."""

    def left() -> None:
        assert not (node.state_dir / "raft").exists()
        assert b"BEGIN PRIVATE KEY" in (node.state_dir / "certificates" / "swarm-node.key").read_bytes()
        assert not (node.state_dir / "certificates" / "swarm-root-ca.key").exists()

    wait_until(left, seconds=40)


def test_a_manager_killed_while_it_is_locked_anew_opens_with_the_old_key_or_the_new(managers: Managers) -> None:
    nodes = managers.three()
    chance = Random(ROUNDS)
    before: str | None = None
    opened_by = {"old": 0, "new": 0}
    for number in range(ROUNDS):
        victim = nodes[chance.randrange(3)]
        by = next(node for node in nodes if node is not victim)
        asked = ("unlock-key", "--rotate")
        if before is None or number % 4 == 3:
            asked = ("update", "--autolock" if before is None else "--no-autolock")
        change = threading.Thread(target=by.swarmctl.run, args=("cluster", *asked))
        change.start()
        # The moment of the kill is the point here: swarmctl needs a quarter of a second until it asks.
        time.sleep(0.2 + chance.random() * 0.3)
        victim.kill()
        change.join()

        after = managers.key_now(by)
        assert opens(victim, after) or opens(victim, before)
        key = after if opens(victim, after) else before
        opened_by["new" if key == after else "old"] += 1
        with given(victim, key):
            victim.start()
            victim.wait_ready()
        managers.wait_agreed(3)
        managers.wait_opens(after)
        before = after
    print(f"{ROUNDS} kills: {opened_by}")


def test_a_node_killed_while_its_role_changes_is_locked_as_a_manager_and_open_as_a_worker(managers: Managers) -> None:
    founder = managers.found("--autolock")
    key = managers.key(founder)
    managers.wait_opens(key, founder)
    node = managers.one_more(role="worker")
    id = node_id(node, founder)
    chance = Random(ROUNDS)
    needed = 0
    rounds = max(2, ROUNDS // 2)
    for number in range(rounds):
        is_manager = number % 2 == 0
        founder.swarmctl("node", "promote" if is_manager else "demote", id)
        # The moment of the kill is the point here: between the certificate and the log, or before, or after.
        time.sleep(chance.random() * 1.2)
        node.kill()

        certificate = x509.load_pem_x509_certificate((node.state_dir / "certificates" / "swarm-node.crt").read_bytes())
        private_key = (node.state_dir / "certificates" / "swarm-node.key").read_bytes()
        if "swarm-manager" in certificate.subject.rfc4514_string() and not waits_for_its_certificate(node):
            needed += 1
            assert b"ENCRYPTED" in private_key
        with given(node, key):
            node.start()
            node.wait_ready()
            if is_manager:
                managers.wait_agreed(2)
                managers.wait_opens(key, node)
            else:
                has_left(node)
                managers.wait_agreed(1)
    print(f"{rounds} kills, {needed} of a manager")


def waits_for_its_certificate(node: Swarmd) -> bool:
    """Whether a kill left the private key in place, and the certificate that belongs to it beside its own."""
    return (node.state_dir / "certificates" / ".swarm-node.crt").exists()

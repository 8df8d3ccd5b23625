"""A backup brings a whole cluster back, also at another address, and old managers stay out."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from swarmcore.testing.cluster import SwarmctlError, Swarmd, program, wait_until
from swarmcore.testing.faults import refused_start
from swarmcore.testing.machines import Machines, complaint
from swarmcore.testing.ports import free_port


@pytest.fixture
def passphrase(folder: Path) -> tuple[str, str]:
    path = folder / "passphrase"
    path.write_text("correct horse battery\n")
    return "--passphrase-file", str(path)


def configs(node: Swarmd) -> set[str]:
    return {row["Name"] for row in node.swarmctl.table("config", "ls")}


def states(node: Swarmd) -> dict[str, str]:
    return {row["Name"]: row["Status"] for row in node.swarmctl.table("node", "ls")}


def wait_state(node: Swarmd, name: str, state: str) -> None:
    def check() -> None:
        assert states(node).get(name) == state, states(node)

    wait_until(check, seconds=40)


def test_all_managers_are_lost_and_a_backup_of_a_follower_brings_them_back(
    three: Machines, passphrase: tuple[str, str]
) -> None:
    m1, m2 = three.nodes["m1"], three.nodes["m2"]
    m1.swarmctl("config", "create", "before", stdin=b"x")
    m1.swarmctl("secret", "create", "hidden", stdin=b"very secret indeed")
    file = three.folder / "backup"
    said = m2.swarmctl("cluster", "backup", *passphrase, str(file))
    assert "as of log entry" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and b"very secret" not in file.read_bytes()
    assert "whole; cluster" in m2.swarmctl("cluster", "check-backup", *passphrase, str(file))
    with pytest.raises(SwarmctlError, match="is there already"):
        m2.swarmctl("cluster", "backup", *passphrase, str(file))
    m1.swarmctl("config", "create", "after", stdin=b"x")
    tokens = {role: three.token("m1", role) for role in ("worker", "manager")}
    three.kill("m1", "m2", "m3")

    # At the address of a lost manager, so that the worker finds it by itself.
    three.addresses["m9"] = three.addresses["m1"]
    flags = ("--listen-remote-api", three.addresses["m9"], "--hostname", "m9", "--executor", "process")
    m9 = three.nodes["m9"] = Swarmd(three.folder / "m9", (*flags, "--restore", str(file), *passphrase))
    m9.start()
    m9.wait_ready()

    assert configs(m9) == {"before"}
    assert {role: three.token("m9", role) for role in ("worker", "manager")} == tokens
    wait_state(m9, "w1", "READY")

    # Started again just so, flags and all, it goes on.
    m9.swarmctl("config", "create", "new", stdin=b"x")
    m9.kill()
    m9.start()
    m9.wait_ready()
    assert configs(m9) == {"before", "new"}

    # An old manager that is started again finds the new one where m1 was, and ends.
    old = three.restart("m2", ready=False)
    assert old.wait_end() == 1
    assert "belongs to an old group" in complaint(old)

    three.join("m4", "manager", by="m9")
    three.wait_managers(2, by="m9")


def test_a_restored_cluster_at_another_address_takes_workers_that_are_told_and_finds_old_managers(
    three: Machines, passphrase: tuple[str, str]
) -> None:
    w1, file = three.nodes["w1"], three.folder / "backup"
    three.nodes["m1"].swarmctl("cluster", "backup", *passphrase, str(file))
    three.kill("m1", "m2", "m3", "w1")

    m9 = three.add("m9", "--restore", str(file), *passphrase)
    three.restart("w1", "--join-addr", three.addresses["m9"])
    wait_state(m9, "w1", "READY")

    # A majority of the old group, which knows nothing of the new one.
    old = [three.restart(name, ready=False) for name in ("m2", "m3")]
    for node in old:
        assert node.wait_end(seconds=90) == 1
        assert "belongs to an old group" in complaint(node) and three.addresses["m9"] in complaint(node)
    assert w1.is_running


def test_what_can_not_be_restored_changes_nothing(machines: Machines, passphrase: tuple[str, str]) -> None:
    m1 = machines.add("m1")
    file = machines.folder / "backup"
    m1.swarmctl("cluster", "backup", *passphrase, str(file))
    wrong = machines.folder / "wrong"
    wrong.write_text("incorrect horse")
    cut = machines.folder / "cut"
    cut.write_bytes(file.read_bytes()[:-10])
    empty = machines.folder / "empty"

    def refused(*flags: str, state: Path = empty) -> str:
        base = ("-d", str(state), "--listen-control-api", str(machines.folder / "x.sock"))
        return refused_start(*base, "--listen-remote-api", f"127.0.0.1:{free_port()}", "--executor", "process", *flags)

    assert "the passphrase is not that of" in refused("--restore", str(file), "--passphrase-file", str(wrong))
    assert "is damaged at byte" in refused("--restore", str(cut), *passphrase)
    assert "can't read the backup" in refused("--restore", str(machines.folder / "none"), *passphrase)
    assert "is no backup" in refused("--restore", str(wrong), *passphrase)
    assert "--restore needs the passphrase" in refused("--restore", str(file))
    assert sorted(path.name for path in empty.iterdir()) == ["lock"]
    used = machines.folder / "used"
    (used / "raft").mkdir(parents=True)
    assert "needs an empty state directory" in refused("--restore", str(file), *passphrase, state=used)
    assert sorted(path.name for path in used.iterdir()) == ["lock", "raft"]


def test_without_a_majority_a_backup_has_to_be_asked_for(three: Machines, passphrase: tuple[str, str]) -> None:
    three.kill("m2", "m3")
    m1, file = three.nodes["m1"], three.folder / "backup"

    def refused() -> None:
        run = m1.swarmctl.run("cluster", "backup", *passphrase, str(file))
        assert run.returncode == 1 and b"give --without-leader" in run.stderr, run
        assert not file.exists()

    wait_until(refused)
    run = m1.swarmctl.run("cluster", "backup", "--without-leader", *passphrase, str(file))

    assert run.returncode == 0 and b"no leader confirmed" in run.stderr, run
    assert "not confirmed by a leader" in m1.swarmctl("cluster", "check-backup", *passphrase, str(file))


def test_a_restored_manager_of_a_locked_cluster_is_locked_with_the_same_key(
    machines: Machines, passphrase: tuple[str, str]
) -> None:
    m1 = machines.add("m1", "--autolock")
    file = machines.folder / "backup"
    m1.swarmctl("cluster", "backup", *passphrase, str(file))
    (key,) = unlock_keys(m1)
    machines.kill("m1")

    m9 = machines.add("m9")
    m9.kill()
    shutil.rmtree(m9.state_dir)
    machines.restart("m9", "--restore", str(file), *passphrase)
    assert unlock_keys(m9) == [key]
    m9.kill()

    node = machines.restart("m9", ready=False)
    assert node.wait_end() == 1
    assert "node is locked" in complaint(node)
    machines.restart("m9", "--unlock-key", key)
    verify = m9.swarmctl.run("raft", "verify", "-d", str(m9.state_dir), "--unlock-key-file", "-", stdin=key.encode())
    assert verify.returncode == 0, verify


def test_a_backup_that_is_killed_leaves_the_old_one(machines: Machines, passphrase: tuple[str, str]) -> None:
    m1 = machines.add("m1")
    file = machines.folder / "backup"
    m1.swarmctl("cluster", "backup", *passphrase, str(file))
    before = file.read_bytes()

    for seconds in (0.2, 0.6, 0.8, 1.0):
        command = (
            program("swarmctl"),
            "-s",
            str(m1.socket),
            "cluster",
            "backup",
            *passphrase,
            "--overwrite",
            str(file),
        )
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as backup:
            try:
                backup.wait(seconds)
            except subprocess.TimeoutExpired:
                backup.kill()
        assert file.read_bytes() == before or backup.returncode == 0
        assert "whole; cluster" in m1.swarmctl("cluster", "check-backup", *passphrase, str(file))
        before = file.read_bytes()


def unlock_keys(node: Swarmd) -> list[str]:
    return [word for word in node.swarmctl("cluster", "unlock-key").split() if word.startswith("SWMKEY")]

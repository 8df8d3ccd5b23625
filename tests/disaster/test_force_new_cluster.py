"""A majority is lost for good: one manager goes on alone, and the others can't come back by accident."""

from __future__ import annotations

import subprocess
from random import Random

from swarmcore.testing.cluster import Swarmd, wait_until
from swarmcore.testing.faults import marked, processes
from swarmcore.testing.machines import Machines, complaint


def test_the_last_manager_of_three_goes_on_alone_and_others_may_join_again(three: Machines) -> None:
    m1 = three.nodes["m1"]
    m1.swarmctl("config", "create", "before", stdin=b"x")
    three.kill("m2", "m3", "m1")

    three.restart("m1", "--force-new-cluster")

    wait_until(lambda: _has_config(m1, "before"))
    three.wait_managers(1, by="m1")
    m1.swarmctl("config", "create", "after", stdin=b"y")
    wait_until(lambda: _is_ready(m1, "w1"), seconds=40)

    # An old manager that is started again is told what became of its group, and ends.
    old = three.restart("m2", ready=False)
    assert old.wait_end() == 1
    assert "belongs to an old group" in complaint(old) and three.addresses["m1"] in complaint(old)

    # The tokens are the same ones, and a new manager catches up.
    three.join("m4", "manager", by="m1")
    three.wait_managers(2, by="m1")
    _has_config(three.nodes["m4"], "after")


def _has_config(node: Swarmd, name: str) -> None:
    run = node.swarmctl.run("config", "ls")
    assert name in run.stdout.decode(), run.stderr.decode()


def _is_ready(node: Swarmd, name: str) -> None:
    states = {row["Name"]: row["Status"] for row in node.swarmctl.table("node", "ls")}
    assert states.get(name) == "READY", states


def test_it_is_refused_where_the_others_have_a_leader(three: Machines) -> None:
    three.kill("m1")
    three.wait_managers(2, by="m2")

    node = three.restart("m1", "--force-new-cluster", ready=False)

    assert node.wait_end() == 1
    assert "have one: start this one without it" in complaint(node)
    three.restart("m1")
    three.wait_managers(3, by="m1")


def test_it_is_refused_where_another_manager_runs_that_would_be_left_out(machines: Machines) -> None:
    machines.add("m1")
    machines.join("m2", "manager", by="m1")
    machines.wait_managers(2, by="m1")
    machines.kill("m1")

    node = machines.restart("m1", "--force-new-cluster", ready=False)

    assert node.wait_end() == 1
    assert f"would leave out the managers at {machines.addresses['m2']}" in complaint(node)
    machines.restart("m1")
    machines.wait_managers(2, by="m1")


def test_a_locked_manager_goes_on_alone_at_another_address_with_its_key(machines: Machines) -> None:
    m1 = machines.add("m1", "--autolock")
    (key,) = [word for word in m1.swarmctl("cluster", "unlock-key").split() if word.startswith("SWMKEY")]
    machines.join("m2", "manager", by="m1")
    machines.join("w1", "worker", by="m1")
    machines.wait_managers(2, by="m1")
    m1.swarmctl("config", "create", "before", stdin=b"x")
    machines.kill("m1", "m2", "w1")

    node = machines.restart("m1", "--force-new-cluster", ready=False)
    assert node.wait_end() == 1
    assert "node is locked" in complaint(node)

    machines.move("m1")
    machines.restart("m1", "--force-new-cluster", "--unlock-key", key)
    wait_until(lambda: _has_config(m1, "before"))
    machines.restart("w1", "--join-addr", machines.addresses["m1"])
    wait_until(lambda: _is_ready(m1, "w1"), seconds=40)

    # Stopped and started as ever, with no flag but the key.
    m1.kill()
    machines.restart("m1", "--unlock-key", key)
    machines.wait_managers(1, by="m1")


def test_killed_at_any_moment_it_starts_with_the_flag_or_without(three: Machines) -> None:
    m1, chance = three.nodes["m1"], Random(4)
    m1.swarmctl("config", "create", "before", stdin=b"x")
    three.kill("m1", "m2", "m3")

    for round in range(6):
        node = three.restart("m1", *(("--force-new-cluster",) if round % 3 else ()), ready=False)
        kill_after(node, chance.uniform(0.3, 2.0))
    three.restart("m1", "--force-new-cluster")

    three.wait_managers(1, by="m1")
    _has_config(m1, "before")
    m1.swarmctl("config", "create", "after", stdin=b"x")


def test_tasks_run_on_while_their_manager_is_forced(machines: Machines) -> None:
    m1 = machines.add("m1")
    machines.join("m2", "manager", by="m1")
    machines.join("w1", "worker", by="m1")
    machines.wait_managers(2, by="m1")
    m1.swarmctl("service", "create", "--name", "web", *process(1), "--constraint", "node.hostname==w1")
    pids = wait_until(lambda: _running(1))
    machines.kill("m1", "m2")

    machines.restart("m1", "--force-new-cluster")

    wait_until(lambda: _is_ready(m1, "w1"), seconds=40)
    wait_until(lambda: _replicas(m1, "web", "1/1"), seconds=40)
    assert _running(1) == pids


# A log that is gone or damaged


def test_a_manager_without_its_log_does_not_vote_and_says_what_to_do(three: Machines) -> None:
    three.kill("m2")
    raft = three.nodes["m2"].state_dir / "raft"
    raft.rename(raft.with_name("elsewhere"))

    node = three.restart("m2", ready=False)

    assert node.wait_end() == 1
    assert "there is no raft state in" in complaint(node) and "join it again" in complaint(node)
    three.wait_managers(2, by="m1")

    # Replaced as it says.
    by = three.nodes["m1"]
    by.swarmctl("node", "demote", "m2")
    wait_until(lambda: _is_worker(by, "m2"))
    by.swarmctl("node", "remove", "--force", "m2")
    three.folder.joinpath("m2").rename(three.folder / "m2-old")
    three.join("m2", "manager", by="m1")
    three.wait_managers(3, by="m1")


def test_a_damaged_log_is_named_and_the_others_go_on(three: Machines) -> None:
    three.kill("m2")
    log = max((three.nodes["m2"].state_dir / "raft").glob("log-*"))
    data = bytearray(log.read_bytes())
    data[200] ^= 1
    log.write_bytes(data)

    node = three.restart("m2", ready=False)

    assert node.wait_end() == 1
    assert f"'{log}' is damaged at byte" in complaint(node) and "--restore" in complaint(node)
    run = node.swarmctl.run("raft", "verify", "-d", str(node.state_dir))
    assert run.returncode == 1 and f"'{log}' is damaged at byte".encode() in run.stdout
    three.nodes["m1"].swarmctl("config", "create", "meanwhile", stdin=b"x")


def process(number: int) -> tuple[str, ...]:
    return "--runtime", "process", "--command", "sleep", "--args", marked(number)


def kill_after(node: Swarmd, seconds: float) -> None:
    """Kill it at that moment of its start."""
    assert node.process is not None
    try:
        node.process.wait(seconds)
    except subprocess.TimeoutExpired:
        node.kill()


def _running(number: int) -> set[int]:
    pids = set(processes(marked(number)))
    assert pids
    return pids


def _replicas(node: Swarmd, name: str, wanted: str) -> None:
    assert {row["Name"]: row["Replicas"] for row in node.swarmctl.table("service", "ls")}[name] == wanted


def _is_worker(node: Swarmd, name: str) -> None:
    assert name not in {row["Name"] for row in node.swarmctl.table("node", "ls") if row["Manager status"]}

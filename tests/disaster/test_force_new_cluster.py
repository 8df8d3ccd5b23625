"""A majority is lost for good: one manager goes on alone, and the others can't come back by accident."""

from __future__ import annotations

from swarmcore.testing.cluster import Swarmd, wait_until
from swarmcore.testing.faults import marked
from swarmcore.testing.machines import Machines, complaint


def services(node: Swarmd) -> dict[str, str]:
    return {row["Name"]: row["Replicas"] for row in node.swarmctl.table("service", "ls")}


def run_service(node: Swarmd, name: str, replicas: int, number: int) -> None:
    command = ("service", "create", "--name", name, "--image", "process", "--replicas", str(replicas))
    node.swarmctl(*command, "--command", "sleep", "--args", marked(number))


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

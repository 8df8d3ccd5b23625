"""The operator's session, command by command, through a socket."""

from __future__ import annotations

import time

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.testing.control_socket import Ctl, FakeManager, a_node, a_task, three_nodes


def stamped(task: Task, seconds_ago: float) -> Task:
    task.status.timestamp.FromNanoseconds(int((time.time() - seconds_ago) * 1e9))
    return task


def test_node_ls_is_the_table_of_the_session(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    shown = ctl("node", "ls")

    assert shown.out == (
        "ID             Name     Membership  Status  Availability  Manager status\n"
        "--             ----     ----------  ------  ------------  --------------\n"
        "6rj5b1zx4makm  docker1  ACCEPTED    READY   ACTIVE        REACHABLE *\n"
        "91c04eb0s86k8  docker2  ACCEPTED    READY   ACTIVE\n"
        "nf6xx9hpf3s39  docker3  ACCEPTED    READY   ACTIVE\n"
    )
    assert (shown.code, shown.err) == (0, "")


def test_create_prints_the_id_and_ls_counts_what_runs(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    created = ctl("service", "create", "--name", "redis", "--image", "redis:3.0.5")
    service = manager.one("service")
    manager.put(a_task("t1", service, 1, node="6rj5b1zx4makm"))
    shown = ctl("service", "ls")

    assert (created.code, created.out) == (0, f"{service.id}\n")
    assert shown.out == (
        "ID                         Name   Image        Replicas\n"
        "--                         ----   -----        --------\n"
        f"{service.id}  redis  redis:3.0.5  1/1\n"
    )


def test_service_inspect_is_the_page_of_the_session(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("service", "create", "--name", "redis", "--image", "redis:3.0.5")
    service = manager.one("service")
    manager.put(stamped(a_task("6umyydpxwtzfs3ksgz0e", service, 1, node="6rj5b1zx4makm"), 3700))

    shown = ctl("service", "inspect", "redis")

    assert shown.out == (
        f"ID                : {service.id}\n"
        "Name              : redis\n"
        "Replicas          : 1/1\n"
        "Template\n"
        " Container\n"
        "  Image           : redis:3.0.5\n"
        "\n"
        "Task ID               Service  Slot  Image        Desired State  Last State                 Node\n"
        "-------               -------  ----  -----        -------------  ----------                 ----\n"
        "6umyydpxwtzfs3ksgz0e  redis    1     redis:3.0.5  RUNNING        RUNNING About an hour ago  docker1\n"
    )


def test_updates_change_only_what_their_flags_name(manager: FakeManager, ctl: Ctl) -> None:
    ctl("service", "create", "--name", "redis", "--image", "redis:3.0.5", "--env", "A=1", "--log-driver", "syslog")

    scaled = ctl("service", "update", "redis", "--replicas", "6")
    ctl("service", "update", "redis", "--image", "redis:3.0.6")
    staged = ctl(
        "service", "update", "redis", "--image", "redis:3.0.7", "--update-parallelism", "3", "--update-delay", "20s"
    )

    service = manager.one("service")
    assert (scaled.code, scaled.out, staged.code) == (0, f"{service.id}\n", 0)
    assert service.spec.replicated.replicas == 6
    assert service.spec.task.container.image == "redis:3.0.7"
    assert (service.spec.update.parallelism, service.spec.update.delay.seconds) == (3, 20)
    assert list(service.spec.task.container.env) == ["A=1"]
    assert service.spec.task.log_driver.name == "syslog"


def test_without_update_flags_all_tasks_are_replaced_at_once(manager: FakeManager, ctl: Ctl) -> None:
    ctl("service", "create", "--name", "redis", "--image", "redis:3.0.5")

    spec = manager.one("service").spec
    assert spec.HasField("update") and spec.update.parallelism == 0


def test_drain_shows_in_node_ls_and_a_second_drain_is_an_error(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    drained = ctl("node", "drain", "docker1")
    again = ctl("node", "drain", "docker1")

    assert (drained.code, drained.out) == (0, "")
    assert "docker1  ACCEPTED    READY   DRAIN         REACHABLE *" in ctl("node", "ls").out
    assert (again.code, again.err) == (1, "Error: Node docker1 was already drained\n")


def test_a_pending_node_is_accepted_or_rejected(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    for number in (1, 2):
        node = a_node(f"pending{number}", f"new{number}", state=NodeStatus.UNKNOWN)
        node.spec.membership = NodeSpec.PENDING
        manager.put(node)

    assert ctl("node", "accept", "new1").code == 0
    assert ctl("node", "reject", "new2").code == 0

    members = {node.id: node.spec.membership for node in manager.all("node")}
    assert members["pending1"] == NodeSpec.ACCEPTED
    assert "pending2" not in members
    assert "was accepted already" in ctl("node", "reject", "new1").err


def test_removing_several_services_removes_each_and_says_which_was_not_there(manager: FakeManager, ctl: Ctl) -> None:
    ctl("service", "create", "--name", "a", "--image", "x")
    ctl("service", "create", "--name", "b", "--image", "x")

    removed = ctl("svc", "rm", "a", "nosuch", "b")

    assert (removed.code, removed.out) == (1, "a\nb\n")
    assert removed.err == "Error: service nosuch not found: `swarmctl service ls` lists what there is\n"
    assert manager.all("service") == []


def test_cluster_inspect_shows_tokens_digest_and_commands_to_join(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)

    shown = ctl("cluster", "inspect", "default").out

    assert "docker swarm join --token SWMTKN-1-root-worker 10.1.1.1:4242\n" in shown
    assert "sha256:abab" in shown


def test_an_error_of_a_task_stands_in_the_tables(manager: FakeManager, ctl: Ctl) -> None:
    three_nodes(manager)
    ctl("service", "create", "--name", "redis", "--image", "redis:3.0.5")
    task = a_task("t1", manager.one("service"), 1)
    task.status.state = TaskState.PENDING
    task.status.err = "no suitable node (scheduling constraints\nnot satisfied on 3 nodes)"
    manager.put(task)

    assert ctl("task", "ls").out == (
        "ID  Service  Desired State  Last State  Node  Error\n"
        "--  -------  -------------  ----------  ----  -----\n"
        "t1  redis.1  RUNNING        PENDING           "
        "no suitable node (scheduling constraints not satisfied on 3 nodes)\n"
    )
    assert "no suitable node" in ctl("service", "inspect", "redis").out
    assert " Error            : no suitable node" in ctl("task", "inspect", "t1").out

"""What `swarmctl node inspect` says of a node's executors."""

from __future__ import annotations

import json
from typing import Any

from swarmcore.api.objects_pb2 import Node
from swarmcore.testing.control_socket import Ctl, FakeManager, a_node


def node_with(manager: FakeManager, *plugins: tuple[str, str]) -> None:
    node: Node = a_node("n1", "box")
    node.description.engine.SetInParent()
    for kind, name in plugins:
        node.description.engine.plugins.add(type=kind, name=name)
    manager.put(node)


def as_json(ctl: Ctl) -> Any:
    return json.loads(ctl("node", "inspect", "box", "-o", "json").out)["executors"]


def test_each_runtime_is_shown_with_what_its_executor_can_do(manager: FakeManager, ctl: Ctl) -> None:
    node_with(
        manager,
        ("Log", "journald"),
        ("swarmcore/executor", "container"),
        ("swarmcore/executor", "process"),
        ("swarmcore/executor", "wasm"),
        ("swarmcore/abilities", "container:logs,exec"),
        ("swarmcore/abilities", "process:"),
    )

    lines = [line.split() for line in ctl("node", "inspect", "box").out.splitlines()]

    assert ["container", ":", "exec,", "logs"] in lines
    assert ["process", ":", "runs", "its", "tasks,", "and", "no", "more"] in lines
    assert ["wasm", ":", "does", "not", "say", "what", "it", "can", "do"] in lines
    assert ["Log", ":", "journald"] in lines
    assert not any("swarmcore/" in line[0] for line in lines if line)
    assert as_json(ctl) == [
        {"runtime": "container", "abilities": ["exec", "logs"], "stock_engine": False},
        {"runtime": "process", "abilities": [], "stock_engine": False},
        {"runtime": "wasm", "abilities": None, "stock_engine": False},
    ]


def test_a_stock_engine_is_called_one(manager: FakeManager, ctl: Ctl) -> None:
    node_with(manager, ("Log", "journald"))

    assert "whatever a stock engine can do" in ctl("node", "inspect", "box").out
    assert as_json(ctl) == [{"runtime": "container", "abilities": None, "stock_engine": True}]


def test_a_node_that_runs_no_tasks_has_no_executors(manager: FakeManager, ctl: Ctl) -> None:
    node_with(manager, ("swarmcore/executor", "none"))

    assert "Executors" not in ctl("node", "inspect", "box").out
    assert as_json(ctl) == []

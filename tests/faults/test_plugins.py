"""Plugins that don't load, and one that is not there any more: what needs them is held, everything else goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarmcore.testing.cluster import Swarmd, swarmd, wait_until
from swarmcore.testing.faults import marked, processes, refused_start

FLAGS = ("--listen-remote-api", "127.0.0.1:0", "--hostname", "m1", "--executor", "process")
RUN = ("--runtime", "process", "--command", "sleep", "--args")


def install(folder: Path, name: str, version: str, code: str) -> None:
    """A distribution with one plugin, as pip would leave it in a folder of sys.path."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[swarmcore.v1]\n{name} = {module}\n")
    (info / "RECORD").write_text(f"{module}.py,,\n")


def plugins(node: Swarmd) -> dict[str, dict[str, str]]:
    return {plugin["name"]: plugin for plugin in json.loads(node.swarmctl("plugins", "-o", "json"))["plugins"]}


def runs(node: Swarmd, word: str) -> None:
    def is_so() -> None:
        assert processes(word), node.log[-2000:]

    wait_until(is_so)


def test_plugins_that_can_not_be_imported_are_listed_and_the_rest_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = folder / "packages"
    packages.mkdir()
    install(packages, "acme-broken", "0.3.0", "import nosuch\n")
    install(packages, "acme-leaver", "1.0.0", "import sys\nsys.exit(3)\n")
    install(
        packages,
        "acme-async",
        "1.1.0",
        "from swarmcore.plugin import hookimpl\n\n@hookimpl\nasync def swarmcore_scheduler_filters():\n    return []\n",
    )
    install(
        packages,
        "acme-wrong",
        "2.0.0",
        "from swarmcore.plugin import hookimpl\n\n@hookimpl\ndef swarmcore_scheduler_filters():\n    return [1]\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(packages))

    with swarmd(folder / "m1", *FLAGS) as node:
        listed = plugins(node)
        node.swarmctl("service", "create", "--name", "web", "--constraint", "node.hostname==m1", *RUN, marked(40))
        runs(node, marked(40))
        detail = node.swarmctl("plugins", "inspect", "acme-broken")
        node.swarmctl("service", "remove", "web")

    assert {name: listed[name]["state"] for name in listed if name.startswith("acme")} == {
        "acme-async": "ERROR",
        "acme-broken": "ERROR",
        "acme-leaver": "ERROR",
        "acme-wrong": "ERROR",
    }
    assert listed["acme-broken"]["error"] == "ModuleNotFoundError: No module named 'nosuch'"
    assert listed["acme-broken"]["version"] == "0.3.0"
    assert listed["constraint-filter"]["state"] == "OK"
    assert "Traceback" in detail and "import nosuch" in detail
    assert "Traceback" not in node.log


def test_without_the_constraint_filter_exactly_the_services_with_constraints_are_held(folder: Path) -> None:
    with swarmd(folder / "m1", *FLAGS) as node:
        for number, constraint in enumerate(("", "node.hostname==m1", "node.role==manager", "")):
            more = ("--constraint", constraint) if constraint else ()
            node.swarmctl("service", "create", "--name", f"s{number}", *more, *RUN, marked(50 + number))
        for number in range(4):
            runs(node, marked(50 + number))
        before = {number: processes(marked(50 + number)) for number in range(4)}
        node.stop()

        first, *entries = node.swarmctl("plugins", "lock").split("[[plugin]]")
        kept = [entry for entry in entries if "constraint-filter" not in entry]
        assert len(kept) == len(entries) - 1
        (node.state_dir / "plugins.lock").write_text("[[plugin]]".join([first, *kept]))
        node.start()
        node.wait_ready()

        assert plugins(node)["constraint-filter"]["state"] == "BLOCKED"
        assert {number: processes(marked(50 + number)) for number in range(4)} == before
        for number in range(4):
            node.swarmctl("service", "update", f"s{number}", "--replicas", "2")

        def is_held() -> None:
            rows = {row["Name"]: row["Replicas"] for row in node.swarmctl.table("service", "ls")}
            assert rows == {"s0": "2/2", "s1": "1/2", "s2": "1/2", "s3": "2/2"}
            for name in ("s1", "s2"):
                assert "filter/constraint is not available" in node.swarmctl("service", "inspect", name)
            for name in ("s0", "s3"):
                assert "not available" not in node.swarmctl("service", "inspect", name)

        wait_until(is_held)
        node.stop()

        (node.state_dir / "plugins.lock").unlink()
        node.start()
        node.wait_ready()

        def is_placed() -> None:
            assert {row["Replicas"] for row in node.swarmctl.table("service", "ls")} == {"2/2"}

        wait_until(is_placed)
        for number in range(4):
            node.swarmctl("service", "remove", f"s{number}")


@pytest.mark.parametrize("content", ["{", "plugin = 3", "\udcff"])
def test_a_lock_that_can_not_be_read_stops_the_start(folder: Path, content: str) -> None:
    state = folder / "state"
    state.mkdir()
    (state / "plugins.lock").write_text(content, errors="surrogateescape")

    complaint = refused_start("-d", str(state), "--listen-control-api", str(folder / "swarm.sock"), *FLAGS)

    assert "plugins.lock" in complaint

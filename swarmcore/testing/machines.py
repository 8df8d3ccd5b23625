"""Several nodes as real processes on loopback: managers and workers that join, die and come back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from swarmcore.testing.cluster import SwarmctlError, Swarmd, wait_until
from swarmcore.testing.faults import LOG_LINE
from swarmcore.testing.ports import free_port


@dataclass(slots=True)
class Machines:
    """Nodes by name, each on its own port of loopback."""

    folder: Path
    nodes: dict[str, Swarmd] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def make(self, name: str, *flags: str) -> Swarmd:
        """A node that has no state yet; not started."""
        self.addresses[name] = f"127.0.0.1:{free_port()}"
        base = ("--listen-remote-api", self.addresses[name], "--hostname", name, "--executor", "process")
        node = self.nodes[name] = Swarmd(self.folder / name, (*base, *flags))
        return node

    def add(self, name: str, *flags: str, ready: bool = True) -> Swarmd:
        """Start a node that has no state yet."""
        node = self.make(name, *flags)
        node.start()
        if ready:
            node.wait_ready()
        return node

    def join(self, name: str, role: str, *, by: str, ready: bool = True) -> Swarmd:
        """Start a node that joins through the manager `by`."""
        return self.add(name, *self.join_flags(self.token(by, role), by=by), ready=ready)

    def join_flags(self, token: str, *, by: str) -> tuple[str, ...]:
        """What lets a node join through the manager `by`: the token in a file, as no argument of a process."""
        file = self.folder / f"token-{len(self.nodes)}"
        file.write_text(token + "\n")
        return "--join-addr", self.addresses[by], "--join-token-file", str(file)

    def token(self, by: str, role: str) -> str:
        tokens = json.loads(self.nodes[by].swarmctl("cluster", "inspect", "default", "-o", "json"))
        return str(tokens["root_ca"]["join_tokens"][role])

    def kill(self, *names: str) -> None:
        for name in names:
            self.nodes[name].kill()

    def restart(self, name: str, *flags: str, ready: bool = True) -> Swarmd:
        """Start a node again, with more flags than before for this one time."""
        node = self.nodes[name]
        before, node.flags = node.flags, (*node.flags, *flags)
        node.start()
        node.flags = before
        if ready:
            node.wait_ready()
        return node

    def move(self, name: str) -> None:
        """Let a node that is down have another address from its next start on."""
        node, old = self.nodes[name], self.addresses[name]
        self.addresses[name] = f"127.0.0.1:{free_port()}"
        node.flags = tuple(self.addresses[name] if flag == old else flag for flag in node.flags)

    def managers(self, by: str) -> dict[str, str]:
        """The managers' status by name, as `by` shows it."""
        rows = self.nodes[by].swarmctl.table("node", "ls")
        return {row["Name"]: row["Manager status"] for row in rows if row["Manager status"]}

    def wait_managers(self, count: int, *, by: str) -> None:
        def seen() -> None:
            status = self.managers(by)
            reachable = [name for name, words in status.items() if words.lower().startswith("reachable")]
            assert len(reachable) == count and any("*" in words for words in status.values()), status

        wait_until(seen, seconds=30)

    def wait_agreed(self, count: int) -> None:
        """Return when each manager that runs says of so many that they can be reached."""

        def agree() -> None:
            for node in self.nodes.values():
                if node.is_running and node.socket.exists():
                    assert [row["reachability"] for row in rows(node)].count("REACHABLE") == count, rows(node)

        wait_until(agree)

    def stop(self) -> None:
        for node in self.nodes.values():
            if node.process is not None and node.is_running:
                node.kill()


def rows(node: Swarmd) -> list[dict[str, str]]:
    """All nodes, as a manager tells of them: id, name, reachability, and "True" for the leader."""
    try:
        listed = json.loads(node.swarmctl("node", "ls", "-o", "json"))
    except SwarmctlError as error:
        raise AssertionError(str(error)) from None
    return [
        {
            "id": each["id"],
            "name": each.get("description", {}).get("hostname", ""),
            "reachability": each.get("manager_status", {}).get("reachability", ""),
            "leader": str(each.get("manager_status", {}).get("leader", False)),
        }
        for each in listed
    ]


def complaint(node: Swarmd) -> str:
    """The last line of a node that ended by itself which is none of its log. Fails on a traceback."""
    assert "Traceback" not in node.log, node.log
    rest = [line for line in node.log.splitlines() if not line.startswith(LOG_LINE)]
    assert rest and rest[-1].startswith("Error: "), node.log[-3000:]
    return rest[-1]

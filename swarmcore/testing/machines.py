"""Several nodes as real processes on loopback: managers and workers that join, die and come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from swarmcore.testing.cluster import Swarmd, free_port, wait_until
from swarmcore.testing.faults import LOG_LINE


@dataclass(slots=True)
class Machines:
    """Nodes by name, each on its own port of loopback."""

    folder: Path
    nodes: dict[str, Swarmd] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *flags: str, ready: bool = True) -> Swarmd:
        """Start a node that has no state yet."""
        self.addresses[name] = f"127.0.0.1:{free_port()}"
        base = ("--listen-remote-api", self.addresses[name], "--hostname", name, "--executor", "process")
        node = self.nodes[name] = Swarmd(self.folder / name, (*base, *flags))
        node.start()
        if ready:
            node.wait_ready()
        return node

    def join(self, name: str, role: str, *, by: str, ready: bool = True) -> Swarmd:
        """Start a node that joins through the manager `by`."""
        token = self.token(by, role)
        return self.add(name, "--join-addr", self.addresses[by], "--join-token", token, ready=ready)

    def token(self, by: str, role: str) -> str:
        for line in self.nodes[by].swarmctl("cluster", "inspect", "default").splitlines():
            words = line.replace(":", " ").split()
            if len(words) == 2 and words[0].lower() == role:
                return words[1]
        raise AssertionError(f"no {role} token")

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

    def stop(self) -> None:
        for node in self.nodes.values():
            if node.is_running:
                node.kill()


def complaint(node: Swarmd) -> str:
    """The last line of a node that ended by itself which is none of its log. Fails on a traceback."""
    assert "Traceback" not in node.log, node.log
    rest = [line for line in node.log.splitlines() if not line.startswith(LOG_LINE)]
    assert rest and rest[-1].startswith("Error: "), node.log[-3000:]
    return rest[-1]

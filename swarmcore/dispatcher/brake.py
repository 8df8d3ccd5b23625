"""Decides whether lost nodes are held: whether too many are gone at once to be believed. Pure: `now` is an argument.

When a switch or a room fails, nodes are declared down one after the other, as their leases end. So with the first one
that is lost those count that have missed a heartbeat: else their tasks would be on the move before the last is gone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence

from swarmcore.api.brake import MARK, Brake, duration_text, is_held
from swarmcore.api.objects_pb2 import Node
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.store.tables import TableReader

NAMES = 10
CALM_SHARE = 0.5
"""Of the share that puts it on: when no more than this is still gone, and stays so, the rest are single losses."""
CALM_SECONDS = 15.0

_log = logging.getLogger("swarmcore.dispatcher")


class BrakeWatch:
    """One term's view. Which nodes are held is in their own objects, so that the next leader goes on with it."""

    def __init__(self, nodes: Sequence[Node], now: float) -> None:
        self._held: dict[str, bool] = {node.id: True for node in nodes if is_held(node)}
        """Nodes that are held, and whether the store says so yet."""
        self._since = now
        self._calm_since: float | None = None
        self._downs: deque[tuple[float, str]] = deque()

    @property
    def is_on(self) -> bool:
        return bool(self._held)

    def lost(
        self, node_ids: Sequence[str], silent: Collection[str], nodes: TableReader[Node], setting: Brake, now: float
    ) -> dict[str, str]:
        """Nodes that are declared down now, and those that have missed a heartbeat: the messages of all that are held.

        That can be nodes that went down a moment ago. A node that is not in the answer is an ordinary loss.
        """
        while self._downs and self._downs[0][0] < now - setting.window_seconds:
            self._downs.popleft()
        is_up = {node.id: node.status.state != NodeStatus.DOWN for node in nodes.all() if _counts(node)}
        before = [id for _, id in self._downs if not is_up.get(id, True)]
        self._downs.extend((now, id) for id in node_ids)
        if not setting.is_on:
            return {}
        if not self._held:
            gone = {*node_ids, *before, *silent} & is_up.keys()
            were_up = len(gone.union(id for id, up in is_up.items() if up))
            if len(gone) < setting.nodes or len(gone) <= setting.share * were_up:
                return {}
            self._since, self._calm_since = now, None
            _say(len(gone), were_up, [_name(nodes.get(id), id) for id in sorted(gone)], setting)
            node_ids = [*node_ids, *before]
        self._held.update((id, False) for id in node_ids if id in is_up and id not in self._held)
        message = f"{MARK}: too many nodes are gone at once, see `swarmctl cluster inspect`"
        return {id: message for id in node_ids if id in self._held}

    def released(self, nodes: TableReader[Node], back: Collection[str], setting: Brake, now: float) -> list[str]:
        """Nodes that are down and not held any more. `back`: nodes with a session. To be called now and then."""
        if not self._held:
            return []
        for id, is_written in list(self._held.items()):
            node = nodes.get(id)
            if is_held(node):
                self._held[id] = True
            elif node is None or is_written or id in back:
                del self._held[id]
        if not self._held:
            _log.warning("no node is held any more: the brake is off")
            self._downs.clear()
            return []
        why = self._why_over(nodes, setting, now)
        if not why:
            return []
        _log.warning("the brake is off, %s: the tasks of %d nodes are replaced", why, len(self._held))
        over, self._held = list(self._held), {}
        self._downs.clear()
        return over

    def _why_over(self, nodes: TableReader[Node], setting: Brake, now: float) -> str:
        if not setting.is_on:
            return "since it is switched off"
        if setting.wait_seconds and now - self._since >= setting.wait_seconds:
            return f"after {duration_text(setting.wait_seconds)}"
        up = sum(_counts(node) and node.status.state != NodeStatus.DOWN for node in nodes.all())
        if len(self._held) > CALM_SHARE * setting.share * (up + len(self._held)):
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_SECONDS:
            return "since most nodes are back"
        return ""


def _counts(node: Node) -> bool:
    """Whether it may have tasks: a drained node takes nothing with it."""
    return node.spec.membership == NodeSpec.ACCEPTED and node.spec.availability != NodeSpec.DRAIN


def _name(node: Node | None, id: str) -> str:
    return node.description.hostname or id if node is not None else id


def _say(gone: int, up: int, names: Sequence[str], setting: Brake) -> None:
    listed = ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")
    until = f"for {duration_text(setting.wait_seconds)} at most" if setting.wait_seconds else "for as long as it takes"
    _log.warning(
        "%d of %d nodes are gone at once: their tasks are not replaced until they are back, %s; "
        "`swarmctl cluster update --brake release` has them replaced now. Gone: %s",
        gone, up, until, listed,
    )  # fmt: skip

"""Operating systems and architectures."""

from __future__ import annotations

from swarmcore.plugin.scheduling import ClusterView, Mask, TaskGroup


class PlatformFilter:
    """One of the platforms that the service names; an empty word matches any."""

    name, order, dynamic = "platform", 400, False

    def prepare(self, group: TaskGroup, view: ClusterView) -> Mask | None:
        platforms = group.spec.placement.platforms
        if not platforms:
            return None
        mask = 0
        for platform in platforms:
            mask |= view.platform(platform.os, platform.architecture)
        return Mask(mask)

    def explain(self, nodes: int) -> str:
        return f"unsupported platform on {nodes} node{'s' if nodes != 1 else ''}"

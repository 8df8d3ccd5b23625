"""What the engine says of its host, as far as it decides which fields of a spec can be honoured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarmcore.errors import ConfigurationError

LOWEST = (4, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Facts from the engine's `/info`."""

    version: tuple[int, int] = (4, 3)
    rootless: bool = False
    cgroup_v2: bool = True
    controllers: frozenset[str] = frozenset({"cpu", "memory", "pids"})
    """Of cgroups, which limits need."""
    has_selinux: bool = False
    has_seccomp: bool = True
    log_drivers: frozenset[str] = frozenset({"k8s-file", "journald", "none"})

    def may_use(self, controller: str) -> bool:
        """Whether the engine gives containers cgroups of their own with this controller."""
        return controller in self.controllers and (self.cgroup_v2 or not self.rootless)

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Host:
        """Raises ConfigurationError where the service is too old."""
        host, security = info["host"], info["host"].get("security") or {}
        text = str((info.get("version") or {}).get("Version") or "")
        version = tuple(int(part) if part.isdigit() else 0 for part in text.split(".")[:2])
        if len(version) != 2 or version < LOWEST:
            raise ConfigurationError(f"Podman {text or 'of unknown version'} is too old: 4.0 or later is needed")
        return cls(
            version=(version[0], version[1]),
            rootless=bool(security.get("rootless")),
            cgroup_v2=host.get("cgroupVersion") == "v2",
            controllers=frozenset(host.get("cgroupControllers") or ()),
            has_selinux=bool(security.get("selinuxEnabled")),
            has_seccomp=bool(security.get("seccompEnabled")),
            log_drivers=frozenset((info.get("plugins") or {}).get("log") or ()),
        )

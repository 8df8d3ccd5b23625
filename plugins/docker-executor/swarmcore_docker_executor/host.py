"""What the engine says of its host, as far as it decides which fields of a spec can be honoured.

The engine itself leaves out what its host lacks, with a warning that no task's owner would see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from swarmcore.plugin import abilities

_LIMITS: Final = {
    "resources.limits.memory_bytes": "MemoryLimit",
    "resources.swap_bytes": "SwapLimit",
    "resources.limits.nano_cpus": "CpuCfsQuota",
    "container.pidsLimit": "PidsLimit",
}
"""Fields, and the word of `/info` that says whether the host's kernel knows such a limit."""
_ABILITIES: Final = {
    "resources.limits.memory_bytes": "limits",
    "resources.limits.nano_cpus": "limits",
    "resources.swap_bytes": "swap",
    "container.pidsLimit": "pids-limit",
}
"""What the managers call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Facts from the engine's `/info`; what it does not say is taken to be there."""

    missing_limits: frozenset[str] = frozenset()
    """Fields that the host's kernel has no limit for."""
    has_swappiness: bool = True
    has_selinux: bool = True
    has_seccomp: bool = True

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Host:
        names = {str(option).partition(",")[0] for option in info.get("SecurityOptions") or ()}
        return cls(
            missing_limits=frozenset(field for field, word in _LIMITS.items() if info.get(word) is False),
            has_swappiness=str(info.get("CgroupVersion") or "1") != "2",
            has_selinux="name=selinux" in names,
            has_seccomp="name=seccomp" in names,
        )

    @property
    def abilities(self) -> frozenset[str]:
        """What containers can have here: tasks that need more are better kept off than refused."""
        missing = {_ABILITIES[field] for field in self.missing_limits}
        for word, is_there in (
            ("swappiness", self.has_swappiness),
            ("selinux", self.has_selinux),
            ("seccomp", self.has_seccomp),
        ):
            if not is_there:
                missing.add(word)
        return abilities.CONTAINERS - missing

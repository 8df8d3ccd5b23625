"""What the engine says of its host, as far as it decides which fields of a spec can be honoured.

The engine itself leaves out what its host lacks, with a warning that no task's owner would see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_ABILITIES: Final = {
    "resources.limits.memory_bytes": "MemoryLimit",
    "resources.reservations.memory_bytes": "MemoryLimit",
    "resources.swap_bytes": "SwapLimit",
    "resources.limits.nano_cpus": "CpuCfsQuota",
    "container.pidsLimit": "PidsLimit",
}
"""Fields, and the word of `/info` that says whether the host's kernel knows such a limit."""


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
            missing_limits=frozenset(field for field, word in _ABILITIES.items() if info.get(word) is False),
            has_swappiness=str(info.get("CgroupVersion") or "1") != "2",
            has_selinux="name=selinux" in names,
            has_seccomp="name=seccomp" in names,
        )

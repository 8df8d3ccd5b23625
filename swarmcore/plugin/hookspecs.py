"""The hooks. Each is called rarely, returns objects, and never decides anything by itself.

Hooks are synchronous and take keyword arguments without defaults. Since: plugin API 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarmcore.plugin import hookspec
from swarmcore.plugin.acceptance import AcceptancePolicy, JoinMethod
from swarmcore.plugin.executor import ExecutorFactory
from swarmcore.plugin.restart import RestartPolicy
from swarmcore.plugin.scheduling import Filter, Strategy

if TYPE_CHECKING:
    import click


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What a plugin says of itself."""

    name: str
    summary: str
    config: type[Any] | None = None
    """A dataclass whose fields and defaults are the plugin's configuration."""
    roles: frozenset[str] = frozenset({"manager", "worker"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginHost:
    """What the process tells a plugin when it configures it."""

    state_dir: str
    role: str
    log: Callable[[str], None]


@hookspec
def swarmcore_plugin() -> PluginInfo:  # type: ignore[empty-body]
    """Say who you are. Optional: without it the distribution's metadata is used. Stable."""


@hookspec
def swarmcore_configure(config: Any, host: PluginHost) -> None:
    """Take your configuration. Called before the registration hooks, and again when it changes. Stable."""


@hookspec
def swarmcore_scheduler_filters() -> Sequence[Filter]:  # type: ignore[empty-body]
    """Offer scheduling filters. Two of one name put both plugins in `conflict`. Stable."""


@hookspec
def swarmcore_scheduler_strategies() -> Sequence[Strategy]:  # type: ignore[empty-body]
    """Offer scheduling strategies. Stable."""


@hookspec
def swarmcore_executors() -> Sequence[ExecutorFactory]:  # type: ignore[empty-body]
    """Offer executors. Called once, when the node starts. Stable."""


@hookspec
def swarmcore_acceptance_policies() -> Sequence[AcceptancePolicy]:  # type: ignore[empty-body]
    """Offer acceptance policies. Which of them are asked is the cluster's choice. Stable."""


@hookspec
def swarmcore_join_methods() -> Sequence[JoinMethod]:  # type: ignore[empty-body]
    """Offer the joining node's half of an acceptance policy. Stable."""


@hookspec
def swarmcore_restart_policies() -> Sequence[RestartPolicy]:  # type: ignore[empty-body]
    """Offer restart policies. Stable."""


@hookspec
def swarmcore_services() -> Sequence[Any]:  # type: ignore[empty-body]
    """Offer long-running services. Provisional."""


@hookspec
def swarmcore_observers() -> Sequence[Any]:  # type: ignore[empty-body]
    """Offer observers of events. Provisional."""


@hookspec
def swarmcore_cli(group: click.Group) -> None:
    """Add commands under `swarmctl`. Provisional."""

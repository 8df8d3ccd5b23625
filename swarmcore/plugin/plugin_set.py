"""What was loaded: an immutable, numbered set of capabilities, and a report on each plugin.

Made by `loader.load`, taken by the core at the start of each round or call. Never changes: enabling or disabling
something makes another set with the next number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from swarmcore.plugin.acceptance import AcceptancePolicy, JoinMethod
from swarmcore.plugin.executor import ExecutorFactory
from swarmcore.plugin.health import Breaker, Meter, one_line
from swarmcore.plugin.restart import RestartPolicy
from swarmcore.plugin.scheduling import Filter, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import click


class PluginState(StrEnum):
    """What became of a plugin. Only `ok` and `failing` provide anything."""

    OK = "ok"
    DISABLED = "disabled"
    BLOCKED = "blocked"
    CONFLICT = "conflict"
    INCOMPATIBLE = "incompatible"
    ERROR = "error"
    FAILING = "failing"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """One line of `swarmctl plugins`."""

    name: str
    state: PluginState
    distribution: str = ""
    version: str = ""
    """The version that was loaded, whatever is on disk by now."""
    summary: str = ""
    provides: tuple[str, ...] = ()
    """Capabilities as `kind/name`."""
    order: int | None = None
    """The lowest order of its filters."""
    note: str = ""
    error: str = ""
    """One line; empty where nothing went wrong."""
    traceback: str = ""
    load_seconds: float = 0.0
    hooks: tuple[str, ...] = ()
    calls: int = 0
    p99_seconds: float | None = None


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSet:
    """Everything that plugins provide, ordered, checked and frozen."""

    number: int = 0
    filters: tuple[Filter, ...] = ()
    """By order, ties by name."""
    strategies: Mapping[str, Strategy] = field(default_factory=_nothing)
    executors: Mapping[str, ExecutorFactory] = field(default_factory=_nothing)
    acceptance: Mapping[str, AcceptancePolicy] = field(default_factory=_nothing)
    join_methods: Mapping[str, JoinMethod] = field(default_factory=_nothing)
    restart_policies: Mapping[str, RestartPolicy] = field(default_factory=_nothing)
    services: Mapping[str, Any] = field(default_factory=_nothing)
    observers: Mapping[str, Any] = field(default_factory=_nothing)
    loaded: tuple[PluginReport, ...] = ()
    """The reports as they were when the set was made."""
    breakers: Mapping[str, Breaker] = field(default_factory=_nothing)
    """By plugin."""
    meters: Mapping[str, Meter] = field(default_factory=_nothing)
    """By capability."""
    commands: Mapping[str, Callable[[click.Group], object]] = field(default_factory=_nothing)
    """By plugin: what adds its commands to `swarmctl`."""

    @property
    def reports(self) -> tuple[PluginReport, ...]:
        """Each plugin as it is now: calls and times so far, `failing` where its breaker is open."""
        return tuple(self._current(report) for report in self.loaded)

    def _current(self, report: PluginReport) -> PluginReport:
        breaker = self.breakers.get(report.name)
        if breaker is None or report.state is not PluginState.OK:
            return report
        meters = [self.meters[capability] for capability in report.provides if capability in self.meters]
        slowest = [meter.p99 for meter in meters if meter.p99 is not None]
        return replace(
            report,
            state=PluginState.FAILING if breaker.opened else PluginState.OK,
            calls=sum(meter.calls for meter in meters),
            p99_seconds=max(slowest, default=None),
            error=breaker.last_error,
            traceback=breaker.last_traceback,
        )

    @property
    def capabilities(self) -> frozenset[str]:
        """All that is provided, as `kind/name`."""
        return frozenset(self.meters)

    def report(self, name: str) -> PluginReport | None:
        """The report on one plugin."""
        return next((self._current(report) for report in self.loaded if report.name == name), None)

    def why_unavailable(self, capability: str) -> str:
        """Why nothing provides `capability`, or why what does is not asked, in words for a task's status."""
        meter = self.meters.get(capability)
        if meter is not None:
            return f"{capability} is failing: {meter.breaker.last_error}"
        for report in self.loaded:
            if capability in report.provides:
                return f"{capability} is not available: plugin {report.name!r} is {report.state}"
        return f"{capability} is not available: no plugin provides it"

    def extend_cli(self, group: click.Group) -> Sequence[str]:
        """Let each plugin add its commands; returns a line for each that failed."""
        failures = []
        for name, add in self.commands.items():
            try:
                add(group)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a plugin's command must not take the others away
                failures.append(f"plugin {name!r}: {one_line(error)}")
        return failures


def with_disk_versions(reports: Sequence[PluginReport], installed: Mapping[str, str]) -> list[PluginReport]:
    """Note where another version than the loaded one is on disk by now. `installed`: versions by distribution."""
    noted = []
    for report in reports:
        if report.distribution and report.state in (PluginState.OK, PluginState.FAILING):
            disk = installed.get(report.distribution)
            if disk is None:
                pending = "no longer on disk, restart pending"
            elif disk != report.version:
                pending = f"{disk} on disk, restart pending"
            else:
                pending = ""
            if pending:
                report = replace(report, note="; ".join(filter(None, (report.note, pending))))
        noted.append(report)
    return noted

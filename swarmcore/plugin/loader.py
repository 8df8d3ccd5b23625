"""From entry points to a PluginSet. One bad plugin is listed with its error; the others are loaded all the same.

Called when a node starts and when the operator enables or disables something. Never raises for what a plugin does,
except KeyboardInterrupt. Start reading at `load`.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast

import importlib_metadata
import pluggy

from swarmcore.plugin import ENTRY_POINT_GROUP, PROJECT, hookspecs
from swarmcore.plugin.capabilities import KINDS, Kind, OfferError, check_offers
from swarmcore.plugin.health import Breaker, Meter, one_line, text_of
from swarmcore.plugin.hookspecs import PluginHost, PluginInfo
from swarmcore.plugin.lock import PluginLock
from swarmcore.plugin.metered import MeteredAcceptancePolicy, MeteredRestartPolicy
from swarmcore.plugin.plugin_set import PluginReport, PluginSet, PluginState
from swarmcore.plugin.requirement import is_satisfied, normal_name, requirements_on

_LOG = logging.getLogger("swarmcore.plugin")
_PREFIX = f"{PROJECT}_"


@dataclass(slots=True)
class _Candidate:
    """A plugin on its way through the steps; `state` is set by the one that stops it."""

    point: importlib_metadata.EntryPoint
    name: str
    distribution: importlib_metadata.Distribution | None
    state: PluginState = PluginState.OK
    reason: str = ""
    traceback: str = ""
    note: str = ""
    summary: str = ""
    seconds: float = 0.0
    plugin: Any = None
    impls: dict[str, pluggy.HookImpl] = field(default_factory=dict)
    offers: dict[str, tuple[Kind, Any]] = field(default_factory=dict)
    """By capability."""

    def stop(self, state: PluginState, reason: str, error: BaseException | None = None) -> None:
        self.state = state
        self.reason = reason
        self.traceback = text_of(error) if error is not None else ""

    @property
    def is_ok(self) -> bool:
        return self.state is PluginState.OK


def installed(group: str = ENTRY_POINT_GROUP, path: Sequence[str] | None = None) -> list[importlib_metadata.EntryPoint]:
    """The group's entry points by (name, distribution); `path` as `sys.path`, which is the default."""
    if path is None:
        points = list(importlib_metadata.entry_points(group=group))
    else:
        # Only here can a path be named: `entry_points` takes it for a property of the entry points to select by.
        found = importlib_metadata.distributions(path=list(path))
        points = [point for distribution in found for point in distribution.entry_points.select(group=group)]
    return sorted(points, key=lambda point: (point.name, normal_name(point.dist.name) if point.dist else ""))


def installed_versions(group: str = ENTRY_POINT_GROUP, path: Sequence[str] | None = None) -> dict[str, str]:
    """What is on disk now: versions by distribution."""
    return {point.dist.name: point.dist.version for point in installed(group, path) if point.dist is not None}


def load(
    *,
    role: str,
    group: str = ENTRY_POINT_GROUP,
    disabled: frozenset[str] = frozenset(),
    lock: PluginLock | None = None,
    safe_mode: bool = False,
    required: frozenset[str] = frozenset(),
    config: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    state_dir: str = "",
    log: Callable[[str], None] = _LOG.info,
    previous: PluginSet | None = None,
    path: Sequence[str] | None = None,
    core_version: str | None = None,
) -> PluginSet:
    """Load every installed plugin that may be loaded, and report on all of them.

    `disabled` and the keys of `config` are plugin names; `required` are capabilities (`filter/gpu`) that are reported
    as missing where nobody provides them. `safe_mode` leaves out every plugin that has a policy. `previous` is the set
    in use so far: the new one gets the next number and keeps its breakers and counts.
    """
    version = core_version if core_version is not None else importlib_metadata.version(PROJECT)
    candidates = [
        _Candidate(point, point.name, cast("importlib_metadata.Distribution | None", point.dist))
        for point in installed(group, path)
    ]
    _check_before_import(candidates, disabled, lock, version)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    host = PluginHost(state_dir=state_dir, role=role, log=log)
    for candidate in candidates:
        if not candidate.is_ok:
            continue
        start = time.perf_counter()
        try:
            _import(candidate, manager)
            _register(candidate, host, config.get(candidate.name, {}), safe_mode)
        except KeyboardInterrupt:
            raise
        except OfferError as error:
            candidate.stop(PluginState.ERROR, str(error))
        except BaseException as error:  # noqa: BLE001 - whatever a plugin does (SystemExit too), the manager goes on
            candidate.stop(PluginState.ERROR, one_line(error), error)
        candidate.seconds = time.perf_counter() - start
    _find_conflicts(candidates)
    plugin_set = _freeze(candidates, previous, _missing(candidates, required, lock))
    for report in plugin_set.loaded:
        if report.error:
            _LOG.warning("plugin %s is %s: %s", report.name, report.state, report.error)
    return plugin_set


def _check_before_import(
    candidates: Sequence[_Candidate], disabled: frozenset[str], lock: PluginLock | None, version: str
) -> None:
    claims: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        claims[candidate.name].append(candidate)
    for name, claimants in claims.items():
        if len(claimants) < 2:
            continue
        chosen = lock.claimant(name) if lock is not None else None
        names = ", ".join(repr(each.distribution.name if each.distribution else "?") for each in claimants)
        for candidate in claimants:
            if candidate.distribution is None or normal_name(candidate.distribution.name) != chosen:
                candidate.stop(PluginState.CONFLICT, f"claimed by {names}: uninstall all but one, or lock the one")
    for candidate in candidates:
        distribution = candidate.distribution
        if not candidate.is_ok:
            continue
        if distribution is None:
            candidate.stop(PluginState.ERROR, "its entry point belongs to no distribution")
        elif lock is not None and (objection := lock.objection(candidate.name, distribution)) is not None:
            candidate.stop(PluginState.BLOCKED, objection)
        elif candidate.name in disabled:
            candidate.stop(PluginState.DISABLED, "")
        else:
            for clauses in requirements_on(PROJECT, distribution.requires or ()):
                if not is_satisfied(version, clauses):
                    candidate.stop(
                        PluginState.INCOMPATIBLE,
                        f"{distribution.name} {distribution.version} needs {PROJECT}{clauses}, this is {version}",
                    )


def _import(candidate: _Candidate, manager: pluggy.PluginManager) -> None:
    candidate.plugin = plugin = candidate.point.load()
    _check_hooks(plugin, manager)
    manager.register(plugin, name=candidate.name)
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin is plugin:
                candidate.impls[caller.name] = impl


def _check_hooks(plugin: Any, manager: pluggy.PluginManager) -> None:
    """Refuse what pluggy would take silently and then do otherwise than its author thinks."""
    known = [name for name in dir(hookspecs) if name.startswith(_PREFIX)]
    for attribute in dir(plugin):
        function = getattr(plugin, attribute, None)
        if not (inspect.isroutine(function) or inspect.isclass(function)):
            continue
        options = getattr(function, f"{PROJECT}_impl", None)
        if not isinstance(options, dict):
            if attribute in known and inspect.isroutine(function):
                raise OfferError(f"{attribute} is not marked: put @hookimpl before it")
            continue
        name = options.get("specname") or attribute
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise OfferError(f"unknown hook {name!r}{hint}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise OfferError(f"hook {name} must not be async")
        if inspect.isgeneratorfunction(function):
            raise OfferError(f"hook {name} must not be a generator")
        if any(options.get(each) for each in ("wrapper", "hookwrapper", "tryfirst", "trylast")):
            raise OfferError(
                f"hook {name} must not ask for an order or wrap others: answers never depend on load order"
            )
        _check_arguments(name, function)


def _check_arguments(name: str, function: Callable[..., Any]) -> None:
    wanted = set(inspect.signature(getattr(hookspecs, name)).parameters)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise OfferError(f"hook {name} must name its arguments, not take {parameter}")
        if parameter.name not in wanted:
            offered = ", ".join(sorted(wanted)) or "none"
            raise OfferError(f"hook {name} has no argument {parameter.name!r} (it has: {offered})")
        if parameter.default is not parameter.empty:
            raise OfferError(f"hook {name} must not give its argument {parameter.name!r} a default")


def _call(candidate: _Candidate, hook: str, **arguments: Any) -> Any:
    impl = candidate.impls[hook]
    return impl.function(*(arguments[name] for name in impl.argnames))


def _register(candidate: _Candidate, host: PluginHost, config: Mapping[str, Any], safe_mode: bool) -> None:
    info: PluginInfo | None = None
    if "swarmcore_plugin" in candidate.impls:
        info = _call(candidate, "swarmcore_plugin")
        if not isinstance(info, PluginInfo):
            raise OfferError(f"swarmcore_plugin returned {type(info).__name__}, not a PluginInfo")
        if host.role not in info.roles:
            candidate.stop(PluginState.DISABLED, "")
            candidate.note = f"not for a {host.role}"
            return
    distribution = candidate.distribution
    candidate.summary = info.summary if info else (distribution.metadata.get("Summary", "") if distribution else "")
    if safe_mode and any(kind.is_policy and kind.hook in candidate.impls for kind in KINDS):
        candidate.stop(PluginState.DISABLED, "")
        candidate.note = "safe mode"
        return
    if "swarmcore_configure" in candidate.impls:
        _call(candidate, "swarmcore_configure", config=_config(info, config), host=host)
    elif config:
        raise OfferError("has a configuration and no swarmcore_configure hook to take it")
    for kind in KINDS:
        if kind.hook in candidate.impls:
            for name, offer in check_offers(kind, _call(candidate, kind.hook)).items():
                candidate.offers[f"{kind.name}/{name}"] = (kind, offer)


def _config(info: PluginInfo | None, values: Mapping[str, Any]) -> Any:
    if info is None or info.config is None:
        if values:
            raise OfferError("has a configuration and names no config dataclass in swarmcore_plugin")
        return None
    return info.config(**values)


def _find_conflicts(candidates: Sequence[_Candidate]) -> None:
    """Two offers of one kind and name put both plugins in conflict: load order must not decide."""
    owners: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.is_ok:
            for capability in candidate.offers:
                owners[capability].append(candidate)
    for capability, claimants in owners.items():
        if len(claimants) > 1:
            names = ", ".join(repr(each.name) for each in claimants)
            for candidate in claimants:
                candidate.stop(PluginState.CONFLICT, f"{capability} is offered by {names}: disable all but one")


def _missing(
    candidates: Sequence[_Candidate], required: frozenset[str], lock: PluginLock | None
) -> Iterable[PluginReport]:
    present = {candidate.name for candidate in candidates}
    if lock is not None:
        for plugin in lock.plugins:
            if plugin.name not in present:
                yield PluginReport(
                    name=plugin.name,
                    state=PluginState.MISSING,
                    distribution=plugin.distribution,
                    error=f"the plugin lock names it: install {plugin.distribution}=={plugin.version}",
                )
    provided = {capability for candidate in candidates if candidate.is_ok for capability in candidate.offers}
    for capability in sorted(required - provided):
        yield PluginReport(
            name=capability, state=PluginState.MISSING, error="the cluster's profile needs it: no plugin provides it"
        )


def _freeze(candidates: Sequence[_Candidate], previous: PluginSet | None, missing: Iterable[PluginReport]) -> PluginSet:
    breakers: dict[str, Breaker] = {}
    meters: dict[str, Meter] = {}
    found: dict[str, dict[str, Any]] = {kind.name: {} for kind in KINDS}
    commands: dict[str, Callable[[Any], object]] = {}
    for candidate in candidates:
        if not candidate.is_ok:
            continue
        kept = previous.breakers.get(candidate.name) if previous else None
        breaker = breakers[candidate.name] = kept or Breaker()
        for capability, (kind, offer) in candidate.offers.items():
            meter = previous.meters.get(capability) if previous else None
            if meter is None or meter.breaker is not breaker:
                meter = Meter(capability, breaker)
            meters[capability] = meter
            if kind.name == "restart":
                offer = MeteredRestartPolicy(offer, meter)
            elif kind.name == "acceptance":
                offer = MeteredAcceptancePolicy(offer, meter)
            found[kind.name][offer.name] = offer
        if "swarmcore_cli" in candidate.impls:
            commands[candidate.name] = candidate.impls["swarmcore_cli"].function
    frozen = {name: MappingProxyType(offers) for name, offers in found.items()}
    reports = [_report(candidate, previous) for candidate in candidates]
    return PluginSet(
        number=previous.number + 1 if previous else 1,
        filters=tuple(sorted(frozen["filter"].values(), key=lambda each: (each.order, each.name))),
        strategies=frozen["strategy"],
        executors=frozen["executor"],
        acceptance=frozen["acceptance"],
        join_methods=frozen["join"],
        restart_policies=frozen["restart"],
        services=frozen["service"],
        observers=frozen["observer"],
        loaded=(*reports, *missing),
        breakers=MappingProxyType(breakers),
        meters=MappingProxyType(meters),
        commands=MappingProxyType(commands),
    )


def _report(candidate: _Candidate, previous: PluginSet | None) -> PluginReport:
    distribution = candidate.distribution
    report = PluginReport(
        name=candidate.name,
        state=candidate.state,
        distribution=distribution.name if distribution else "",
        version=distribution.version if distribution else "",
        summary=candidate.summary,
        provides=tuple(sorted(candidate.offers)),
        order=min((offer.order for kind, offer in candidate.offers.values() if kind.name == "filter"), default=None),
        note=candidate.note,
        error=candidate.reason,
        traceback=candidate.traceback,
        load_seconds=candidate.seconds,
        hooks=tuple(sorted(candidate.impls)),
    )
    if previous is not None:
        before = next((each for each in previous.loaded if each.name == report.name), None)
        # Its modules are in memory since then, whatever the disk holds now.
        if before is not None and before.hooks and before.distribution == report.distribution:
            report = replace(report, version=before.version)
    return report

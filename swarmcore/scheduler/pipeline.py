"""The filters of one group, asked once and resolved: which nodes pass, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from swarmcore.plugin.health import Breaker, Guard, Meter, PluginFailingError, one_line
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.scheduling import Check, Filter, Mask, NodeView, Reasoned, TaskGroup
from swarmcore.scheduler.needs import missing_filters
from swarmcore.scheduler.node_state import NodeState
from swarmcore.scheduler.view import View


@dataclass(frozen=True, slots=True)
class Held:
    """The group can't be decided on: what it needs is missing or failing."""

    reason: str


@dataclass(slots=True, kw_only=True)
class Step:
    """One filter that applies to the group: its mask, or its check."""

    explain: Callable[[int], str]
    mask: Mask | None = None
    check: Check | None = None
    is_dynamic: bool = False
    meter: Meter | None = None


def meter_of(plugins: PluginSet, capability: str) -> Meter:
    """Where calls of a capability are counted; a fresh one for a set that was put together by hand."""
    return plugins.meters.get(capability) or Meter(capability, Breaker())


def prepare(plugins: PluginSet, group: TaskGroup, view: View, now: float) -> Pipeline | Held:
    """Ask every filter about the group. One that is missing and needed, or that fails, holds it: never skipped."""
    missing = missing_filters(group.sample, {each.name for each in plugins.filters})
    if missing:
        return Held("; ".join(plugins.why_unavailable(f"filter/{name}") for name in missing))
    steps = [
        Step(explain=_explain_ready, mask=view.ready),
        Step(explain=lambda nodes: _explain_runtime(group.runtime, nodes), mask=view.runtime(group.runtime)),
    ]
    for each in plugins.filters:
        meter = meter_of(plugins, f"filter/{each.name}")
        try:
            with Guard(meter, "prepare", lambda: now):
                step = _step(each, group, view, meter)
        except PluginFailingError as error:
            return Held(str(error))
        except Exception as error:  # noqa: BLE001 - a plugin's border: what it raises holds the group
            return Held(f"filter/{each.name} failed: {one_line(error)}")
        if step is not None:
            steps.append(step)
    return Pipeline(view, steps, now)


def _step(each: Filter, group: TaskGroup, view: View, meter: Meter) -> Step | None:
    answer = each.prepare(group, view)
    if answer is None:
        return None
    step = Step(explain=each.explain, is_dynamic=each.dynamic, meter=meter)
    if isinstance(answer, Reasoned):
        step.explain, answer = answer.explain, answer.answer
    if not isinstance(answer, int):
        if not callable(answer):
            raise TypeError(f"prepare returned {type(answer).__name__}, neither a mask nor a check nor None")
        step.check = answer
    elif each.dynamic:
        # A mask can't follow what is placed: ask again for each node.
        step.check = lambda node: _masked(each.prepare(group, view), node)
    else:
        step.mask = answer
    return step


def _masked(answer: Mask | Check | Reasoned | None, node: NodeView) -> bool:
    if isinstance(answer, Reasoned):
        answer = answer.answer
    return bool((answer or 0) >> node.index & 1)  # type: ignore[operator]


@dataclass(slots=True)
class Pipeline:
    """What a group's filters said, ready to be applied."""

    view: View
    steps: Sequence[Step]
    """In filter order, what the core itself asks first."""
    now: float
    failing: str = ""
    """Why the group must be held after all: a check's plugin has failed too often. Set while nodes are checked."""
    _checks: list[Step] = field(default_factory=list)
    _dynamic: list[Step] = field(default_factory=list)
    _mask: int = 0

    def __post_init__(self) -> None:
        self._mask = self.view.all
        for step in self.steps:
            if step.mask is not None:
                self._mask &= step.mask
        checked = [step for step in self.steps if step.check is not None]
        self._dynamic = [step for step in checked if step.is_dynamic]
        self._checks = [step for step in checked if not step.is_dynamic] + self._dynamic

    def candidates(self) -> list[NodeState]:
        """The nodes that pass everything now, by index."""
        nodes = self.view.select(self._mask)
        for step in self._checks:
            if not nodes:
                break
            nodes = self._passing(step, nodes)
        return nodes

    @property
    def has_dynamic(self) -> bool:
        """Whether a node that was just placed on must be asked again."""
        return bool(self._dynamic)

    def fits(self, node: NodeState) -> bool:
        """Whether a node that passed, and was placed on since, takes one more."""
        for step in self._dynamic:
            try:
                if not step.check(node):  # type: ignore[misc]
                    return False
            except Exception as error:  # noqa: BLE001 - a plugin's border: a check that raises removes the node
                self._failed(step, error)
                return False
        return True

    def passes(self, node: NodeState) -> bool:
        """Whether one node passes everything now."""
        return bool(self._mask >> node.index & 1) and all(self._passing(step, [node]) for step in self._checks)

    def explain(self) -> str:
        """Why no node fits, as SwarmKit says it: most nodes first, in filter order where equal."""
        counts: list[tuple[int, Step]] = []
        nodes = self.view.select(self.view.all)
        for step in self.steps:
            passed = self._surviving(step, nodes)
            if len(passed) < len(nodes):
                counts.append((len(nodes) - len(passed), step))
            nodes = passed
            if not nodes:
                break
        counts.sort(key=lambda each: -each[0])
        return "; ".join(_words(step, count) for count, step in counts)

    def explain_one(self, node: NodeState) -> str:
        """Why this node does not fit."""
        for step in self.steps:
            if not self._surviving(step, [node]):
                return _words(step, 1)
        return ""

    def _surviving(self, step: Step, nodes: list[NodeState]) -> list[NodeState]:
        if step.mask is None:
            return self._passing(step, nodes)
        mask = step.mask
        return [node for node in nodes if mask >> node.index & 1]

    def _passing(self, step: Step, nodes: list[NodeState]) -> list[NodeState]:
        check, meter = step.check, step.meter
        if check is None or meter is None:
            return nodes
        start = perf_counter()
        try:
            passed = [node for node in nodes if check(node)]
        except Exception:  # noqa: BLE001 - a plugin's border: node by node, to tell which
            passed = self._passing_carefully(step, check, nodes)
        meter.count(len(nodes), (perf_counter() - start) / len(nodes) if nodes else None)
        return passed

    def _passing_carefully(self, step: Step, check: Check, nodes: list[NodeState]) -> list[NodeState]:
        passed = []
        for node in nodes:
            if self.failing:
                break
            try:
                if check(node):
                    passed.append(node)
            except Exception as error:  # noqa: BLE001 - a plugin's border: a check that raises removes the node
                self._failed(step, error)
        return passed

    def _failed(self, step: Step, error: Exception) -> None:
        meter = step.meter
        if meter is None:
            return
        meter.breaker.failed(error, "check", self.now)
        if meter.breaker.opened:
            self.failing = f"{meter.capability} is failing: {meter.breaker.last_error}"


def _words(step: Step, nodes: int) -> str:
    try:
        return str(step.explain(nodes))
    except Exception:  # noqa: BLE001 - a plugin's border: the nodes are removed all the same
        return f"{step.meter.capability if step.meter else 'a filter'} removed {_nodes(nodes)}"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _explain_ready(nodes: int) -> str:
    return f"{_nodes(nodes)} not available for new tasks"


def _explain_runtime(runtime: str, nodes: int) -> str:
    return f"no executor for {runtime!r} tasks on {_nodes(nodes)}"

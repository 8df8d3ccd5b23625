"""One round: from the groups that wait to decisions. Pure: it books what it decides into the view, and does no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heapreplace
from heapq import heappop as pop
from itertools import islice
from time import perf_counter
from typing import cast

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.health import Guard, PluginFailingError, one_line
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.scheduling import NodeView, PlacingStrategy, Strategy, TaskGroup
from swarmcore.scheduler.backlog import Backlog, WaitingGroup
from swarmcore.scheduler.decision import Assign, Decision, Report
from swarmcore.scheduler.node_state import NodeState
from swarmcore.scheduler.pipeline import Held, Pipeline, meter_of, prepare
from swarmcore.scheduler.view import View

EXPLAIN_ALWAYS = 100
"""Tasks of a waiting group up to which every change of the explanation is written at once."""
EXPLAIN_SECONDS = 9.0
"""Larger groups are told of other numbers of nodes at most this often: a cluster that grows by a thousand nodes would
write a thousand times to each waiting task. Less than the time between resyncs, so that the next one catches up."""

_NUMBERS = re.compile(r"\d+ nodes?")

Key = Callable[[NodeView], tuple[int, ...]]


def never() -> bool:
    """Nobody wants the round to end early."""
    return False


def plan(
    view: View,
    backlog: Backlog,
    plugins: PluginSet,
    *,
    strategy: str,
    now: float,
    limit: int,
    is_over: Callable[[], bool] = never,
) -> list[Decision]:
    """Decide about the ready groups until `limit` decisions are made or the round is over, preassigned tasks first.

    A group that was not finished stays ready, behind the others; one for which nothing fits rests. `now` is monotonic.
    """
    view.clock[0] = now
    decisions: list[Decision] = []
    for number, waiting in enumerate(backlog.ready()):
        if number and (len(decisions) >= limit or is_over()):
            break
        _Round(view, backlog, plugins, strategy, now, limit, decisions).decide(waiting)
    return decisions


class _Round:
    """The decision about one group."""

    def __init__(
        self,
        view: View,
        backlog: Backlog,
        plugins: PluginSet,
        strategy: str,
        now: float,
        limit: int,
        decisions: list[Decision],
    ) -> None:
        self._view = view
        self._backlog = backlog
        self._plugins = plugins
        self._strategy = strategy
        self._now = now
        self._limit = limit
        self._decisions = decisions

    def decide(self, waiting: WaitingGroup) -> None:
        service = self._view.services.get(waiting.service_id)
        group = waiting.describe(dict(service.spec.annotations.labels) if service is not None else None)
        strategy = self._plugins.strategies.get(self._strategy)
        if strategy is None:
            self._wait(waiting, f"held: {self._plugins.why_unavailable(f'strategy/{self._strategy}')}")
            return
        pipeline = prepare(self._plugins, group, self._view, self._now)
        if isinstance(pipeline, Held):
            self._wait(waiting, f"held: {pipeline.reason}")
        elif waiting.is_preassigned:
            self._confirm(waiting, pipeline)
        else:
            self._place(waiting, group, pipeline, strategy)

    # Tasks that have a node

    def _confirm(self, waiting: WaitingGroup, pipeline: Pipeline) -> None:
        view, decisions = self._view, self._decisions
        for task in list(waiting.tasks.values()):
            if len(decisions) >= self._limit:
                self._backlog.to_the_end(waiting)
                return
            node = view.node(task.node_id)
            if node is None:
                err = f"node {task.node_id!r} is not in the swarm"
            elif pipeline.passes(node):
                generic = view.book(task.id, task.service_id, node, view.footprint(task))
                decisions.append(Assign(task, node.node, generic))
                self._backlog.discard(task.id)
                continue
            else:
                err = f"held: {pipeline.failing}" if pipeline.failing else pipeline.explain_one(node)
            if task.status.err != err:
                decisions.append(Report(task, err))
        self._backlog.rest(waiting)

    # Tasks that need one

    def _place(self, waiting: WaitingGroup, group: TaskGroup, pipeline: Pipeline, strategy: Strategy) -> None:
        count = min(len(waiting.tasks), max(1, self._limit - len(self._decisions)))
        tasks = list(islice(waiting.tasks.values(), count))
        nodes = pipeline.candidates()
        before = len(self._decisions)
        reason = ""
        if nodes:
            meter = meter_of(self._plugins, f"strategy/{self._strategy}")
            start = perf_counter()
            try:
                with Guard(meter, "place", lambda: self._now):
                    self._book(tasks, group, self._order(group, pipeline, strategy, nodes, count))
            except PluginFailingError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - a plugin's border: what it raises holds the group
                reason = f"strategy/{self._strategy} failed: {one_line(error)}"
            placed = len(self._decisions) - before
            if placed:
                meter.count(placed - 1, (perf_counter() - start) / placed)
        placed = len(self._decisions) - before
        self._backlog.discard_first(waiting, placed)
        if placed < count:
            reason = reason or pipeline.failing
            self._wait(waiting, f"held: {reason}" if reason else _no_suitable_node(pipeline.explain()))
        elif waiting.tasks:
            self._backlog.to_the_end(waiting)

    def _book(self, tasks: Iterable[Task], group: TaskGroup, nodes: Iterator[NodeState]) -> None:
        book, append, service_id = self._view.book, self._decisions.append, group.service_id
        footprint = self._view.footprint(group.sample)
        # Tasks first: a node may be asked for only when there is a task to be booked on it.
        for task, node in zip(tasks, nodes, strict=False):
            append(Assign(task, node.node, book(task.id, service_id, node, footprint)))

    def _order(
        self, group: TaskGroup, pipeline: Pipeline, strategy: Strategy, nodes: list[NodeState], count: int
    ) -> Iterator[NodeState]:
        if isinstance(strategy, PlacingStrategy):
            fits = cast("Callable[[NodeView], bool]", pipeline.fits)
            walk = strategy.place(group, self._view, count, nodes, fits)
            if walk is not None:
                return _checked(walk, pipeline, nodes)
        return _best_first(strategy.rank(group, self._view), pipeline, nodes, count)

    # Tasks that wait

    def _wait(self, waiting: WaitingGroup, err: str) -> None:
        """Nothing more can be placed: say why, where it is not said yet.

        Unlike SwarmKit, which gives up on tasks of an older spec version: a new version may ask for more of the same
        tasks, or wait with the rest of its update, and until they are replaced somebody has to care for them.
        """
        if not waiting.is_preassigned and waiting.service_id and waiting.service_id not in self._view.services:
            # The orchestrator removes them; nobody waits for a node on their behalf.
            self._backlog.discard_first(waiting, len(waiting.tasks))
            return
        is_told = waiting.explained_at is not None and self._now - waiting.explained_at < EXPLAIN_SECONDS
        is_enough = is_told and len(waiting.tasks) > EXPLAIN_ALWAYS
        for task in waiting.tasks.values():
            if task.status.err != err and not (is_enough and _differ_in_numbers(task.status.err, err)):
                if len(self._decisions) >= self._limit:
                    self._backlog.to_the_end(waiting)
                    return
                self._decisions.append(Report(task, err))
                if not is_told:
                    waiting.explained_at = self._now
        self._backlog.rest(waiting)


def _differ_in_numbers(old: str, new: str) -> bool:
    """Whether two explanations say the same of different numbers of nodes."""
    return _NUMBERS.sub("", old) == _NUMBERS.sub("", new)


def _best_first(key: Key, pipeline: Pipeline, nodes: list[NodeState], count: int) -> Iterator[NodeState]:
    """The best node, and again, each time with what was booked on it since; equal ones by index."""
    if count == 1:
        yield min(nodes, key=key)
        return
    heap = [(key(node), node.index, node) for node in nodes]
    heapify(heap)
    fits = pipeline.fits if pipeline.has_dynamic else None
    while heap:
        _, index, node = heap[0]
        yield node
        if fits is None or fits(node):
            heapreplace(heap, (key(node), index, node))
        else:
            pop(heap)


def _checked(walk: Iterator[NodeView], pipeline: Pipeline, nodes: list[NodeState]) -> Iterator[NodeState]:
    """What a strategy yields, if it may."""
    allowed = {node.index: node for node in nodes}
    booked: set[int] = set()
    for chosen in walk:
        node = allowed.get(chosen.index)
        if node is None or (chosen.index in booked and not pipeline.fits(node)):
            raise ValueError(f"it chose node {chosen.id!r}, which does not fit")
        booked.add(chosen.index)
        yield node


def _no_suitable_node(explanation: str) -> str:
    return f"no suitable node ({explanation})" if explanation else "no suitable node"

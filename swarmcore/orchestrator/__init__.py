"""Keeps the tasks in the store what the services ask for.

`components` are leader components, run by the manager; nobody calls them. They write tasks and how updates go; they
never choose a node, and never say what state a task is in (the constraint enforcer's REJECTED apart). What is done is
decided by pure planners, one for each kind of service: start reading in `planner.py`, then `replicated.py` and
`updates.py`. `orchestrator.py` feeds them from the store and writes what they ask for. Restart decisions come from
policy plugins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from swarmcore.api.ids import IdSource, new_id
from swarmcore.clock import Clock, SystemClock
from swarmcore.orchestrator.enforcer import ConstraintEnforcer
from swarmcore.orchestrator.orchestrator import Orchestrator
from swarmcore.orchestrator.reaper import TaskReaper
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.store.store import LeaderStore


class LeaderComponent(Protocol):
    """What the manager runs while it leads."""

    name: str

    async def run(self, store: LeaderStore) -> None: ...


def components(
    *, plugins: Callable[[], PluginSet], clock: Clock | None = None, new_id: IdSource = new_id
) -> list[LeaderComponent]:
    """Everything of this package that runs on the leader. `plugins` is asked for each round."""
    clock = clock if clock is not None else SystemClock()
    return [
        Orchestrator(plugins=plugins, clock=clock, new_id=new_id),
        TaskReaper(clock=clock),
        ConstraintEnforcer(clock=clock),
    ]

"""Which planner serves a service, and the whole of it as one pure function."""

from __future__ import annotations

from collections.abc import Iterable

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.orchestrator.actions import Action
from swarmcore.orchestrator.everywhere import GlobalPlanner
from swarmcore.orchestrator.jobs import GlobalJobPlanner, ReplicatedJobPlanner
from swarmcore.orchestrator.planner import Moment, RemovedServicePlanner, ServicePlanner, World
from swarmcore.orchestrator.replicated import ReplicatedPlanner

_PLANNERS: dict[str, type[ServicePlanner]] = {
    "replicated": ReplicatedPlanner,
    "global": GlobalPlanner,
    "replicated_job": ReplicatedJobPlanner,
    "global_job": GlobalJobPlanner,
}


def planner_for(service: Service | None, world: World, service_id: str = "") -> ServicePlanner:
    """A planner without tasks. `service` is None where only `service_id` is left of it."""
    if service is None:
        return RemovedServicePlanner(Service(id=service_id), world)
    planner = _PLANNERS[service.spec.WhichOneof("mode") or "replicated"](service, world)
    planner.touch_all()
    return planner


def plan(service: Service, tasks: Iterable[Task], *, world: World, moment: Moment) -> list[Action]:
    """Return what turns `tasks`, in the order they were made, into what `service` asks for.

    Pure. Carry the actions out and plan again until the answer is empty: then nothing is to be done at this moment.
    """
    planner = planner_for(service, world)
    for task in tasks:
        planner.put(task)
    actions: list[Action] = []
    while planner.has_work and not actions:
        actions = planner.plan(moment)
    return actions

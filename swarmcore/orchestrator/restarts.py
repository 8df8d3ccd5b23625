"""Whether and when a task that ended gets a successor: asked of the policy plugin that the service names."""

from __future__ import annotations

from dataclasses import dataclass

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.orchestrator.slots import Slot
from swarmcore.plugin.health import one_line
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.plugin.restart import NoRestart, Restart

POLICY_LABEL = "swarmcore.restart-policy"
DEFAULT_POLICY = "default"
DEFAULT_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Held:
    """Nobody can say: nothing is done until somebody can."""

    reason: str


def decide(plugins: PluginSet, service: Service, task: Task, slot: Slot, now: float) -> Restart | NoRestart | Held:
    """Ask the policy of `service` about `task`. A policy that is missing or raises is never guessed for."""
    name = service.spec.annotations.labels.get(POLICY_LABEL, "") or DEFAULT_POLICY
    policy = plugins.restart_policies.get(name)
    if policy is None:
        return Held(f"held: {plugins.why_unavailable(f'restart/{name}')}")
    try:
        decision = policy.decide(task=task, service=service, history=slot.restarts(task), now=now)
    except Exception as error:  # noqa: BLE001 - a plugin's fault holds the task and nothing else
        return Held(f"held: restart/{name} failed: {one_line(error)}")
    if isinstance(decision, NoRestart):
        return decision
    if isinstance(decision, Restart) and decision.delay >= 0:
        return decision
    return Held(f"held: restart/{name} answered {decision!r}")


def restart_delay(task: Task) -> float:
    """The delay of the task's spec, in seconds; 5 where it names none."""
    if not task.spec.restart.HasField("delay"):
        return DEFAULT_DELAY_SECONDS
    delay = task.spec.restart.delay
    return delay.seconds + delay.nanos / 1e9

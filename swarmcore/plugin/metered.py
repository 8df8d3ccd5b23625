"""Policies as the core calls them: the plugin's own object, with its calls counted and its breaker asked first."""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.api.objects_pb2 import Service, Task
from swarmcore.plugin.acceptance import AcceptancePolicy, JoinRequest, Verdict
from swarmcore.plugin.health import Guard, Meter
from swarmcore.plugin.restart import RestartDecision, RestartPolicy, RestartRecord


class MeteredRestartPolicy:
    """A restart policy; raises PluginFailingError while its plugin is failing."""

    def __init__(self, policy: RestartPolicy, meter: Meter) -> None:
        self.name = policy.name
        self.inner = policy
        self._meter = meter

    def decide(
        self, *, task: Task, service: Service | None, history: Sequence[RestartRecord], now: float
    ) -> RestartDecision:
        with Guard(self._meter, "decide"):
            return self.inner.decide(task=task, service=service, history=history, now=now)


class MeteredAcceptancePolicy(AcceptancePolicy):
    """An acceptance policy; raises PluginFailingError while its plugin is failing, which is never an Accept."""

    def __init__(self, policy: AcceptancePolicy, meter: Meter) -> None:
        self.name = policy.name
        self.may_grant = policy.may_grant
        self.inner = policy
        self._meter = meter

    async def evaluate(self, request: JoinRequest) -> Verdict:
        with Guard(self._meter, "evaluate"):
            return await self.inner.evaluate(request)

"""The chain: any Reject rejects, the first Accept accepts, and nothing that goes wrong lets anyone in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.acceptance import DEADLINE_SECONDS, AcceptanceChain, full_chain
from swarmcore.errors import InvalidArgumentError, UnavailableError
from swarmcore.plugin.acceptance import Abstain, Accept, AcceptancePolicy, JoinRequest, Pending, Reject
from swarmcore.plugin.plugin_set import PluginSet
from swarmcore.testing.clock import SimulatedClock

WORKER, MANAGER = NodeRole.WORKER, NodeRole.MANAGER


@dataclass(frozen=True)
class Rule:
    policy: str
    config: str = ""


class Scripted(AcceptancePolicy):
    """Answers what the test says."""

    may_grant = frozenset({WORKER})

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self._answer = answer

    async def evaluate(self, request: JoinRequest) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        if callable(self._answer):
            return await self._answer(request)
        return self._answer


def request(token: str = "") -> JoinRequest:
    return JoinRequest(
        token=token,
        csr=b"csr",
        remote_addr="10.0.0.1",
        cluster_id="c",
        ca_digest="d",
        worker_token="w",  # noqa: S106 - no secret
        manager_token="m",  # noqa: S106 - no secret
    )


def chain(*policies: AcceptancePolicy, clock: SimulatedClock | None = None, **configs: str) -> AcceptanceChain:
    plugins = PluginSet(acceptance={policy.name: policy for policy in policies})
    rules = [Rule(policy.name, configs.get(policy.name, "")) for policy in policies]
    if not any(rule.policy == "token" for rule in rules):
        plugins = PluginSet(acceptance={**plugins.acceptance, "token": Scripted("token", Abstain())})
    return AcceptanceChain(lambda: plugins, rules, clock or SimulatedClock())


def test_join_tokens_come_first_unless_the_operator_places_them() -> None:
    assert [link.policy for link in full_chain([])] == ["token"]
    assert [link.policy for link in full_chain([Rule("auto")])] == ["token", "auto"]
    assert [link.policy for link in full_chain([Rule("auto"), Rule("token", "worker")])] == ["auto", "token"]


async def test_a_reject_wins_over_an_earlier_accept() -> None:
    judged = chain(Scripted("a", Accept(WORKER)), Scripted("b", Reject("not you")))

    with pytest.raises(InvalidArgumentError, match="not you"):
        await judged.judge(request())


async def test_the_first_accept_counts() -> None:
    judged = chain(
        Scripted("a", Pending("p")), Scripted("b", Accept(MANAGER)), Scripted("c", Accept(WORKER)), b="manager"
    )

    assert await judged.judge(request()) == Accept(MANAGER)


async def test_a_node_without_a_token_waits_where_nobody_decides() -> None:
    assert await chain(Scripted("a", Abstain())).judge(request()) == Pending("waits to be accepted by the operator")
    assert await chain(Scripted("a", Pending("soon"))).judge(request()) == Pending("soon")


async def test_a_node_with_a_token_never_waits() -> None:
    with pytest.raises(InvalidArgumentError, match="A valid join token is necessary to join this cluster"):
        await chain(Scripted("a", Pending("soon"))).judge(request("something"))


async def _cancelled(_: JoinRequest) -> Any:
    raise asyncio.CancelledError


@pytest.mark.parametrize("answer", [RuntimeError("a bug"), None, True, Accept(MANAGER), Accept(7), _cancelled])  # type: ignore[arg-type]
async def test_what_goes_wrong_is_never_an_accept(answer: Any) -> None:
    judged = chain(Scripted("a", answer))

    assert isinstance(await judged.judge(request()), Pending)
    with pytest.raises(UnavailableError, match="acceptance/a"):
        await judged.judge(request("something"))


async def test_a_policy_that_hangs_has_two_seconds() -> None:
    hung: list[bool] = []

    async def hang(_: JoinRequest) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            hung.append(True)

    clock = SimulatedClock()
    judging = asyncio.create_task(chain(Scripted("a", hang), clock=clock).judge(request()))
    await clock.advance(DEADLINE_SECONDS - 0.1)
    assert not judging.done()
    await clock.advance(0.1)

    assert isinstance(await judging, Pending) and hung == [True]


async def test_a_late_accept_is_none() -> None:
    clock = SimulatedClock()

    async def late(_: JoinRequest) -> Any:
        await clock.sleep_until(clock.monotonic() + 3)
        return Accept(WORKER)

    judging = asyncio.create_task(chain(Scripted("a", late), clock=clock).judge(request()))
    await clock.advance(5)

    assert isinstance(await judging, Pending)


async def test_a_policy_that_is_not_there_accepts_nobody() -> None:
    judged = AcceptanceChain(PluginSet, [Rule("token"), Rule("gone")], SimulatedClock())

    assert isinstance(await judged.judge(request()), Pending)
    with pytest.raises(UnavailableError, match="acceptance/token is not available"):
        await judged.judge(request("something"))


async def test_a_policy_grants_managers_only_where_the_operator_says_so() -> None:
    manager = Scripted("a", Accept(MANAGER))

    assert isinstance(await chain(manager).judge(request()), Pending)
    assert isinstance(await chain(manager, a="worker").judge(request()), Pending)
    assert await chain(manager, a="10.0.0.0/8,manager").judge(request()) == Accept(MANAGER)


async def test_a_stranger_is_not_told_what_a_policy_says_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    judged = chain(Scripted("a", FileNotFoundError(2, "No such file or directory", "/etc/swarm.psk")))

    with pytest.raises(UnavailableError, match=r"^acceptance/a failed: the manager's log says more$"):
        await judged.judge(request("something"))
    assert "/etc/swarm.psk" in caplog.text

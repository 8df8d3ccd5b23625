"""The acceptance chain: every policy is asked, each in 2 s; nothing that goes wrong with one is an Accept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from swarmcore.api.types_pb2 import NodeRole
from swarmcore.clock import Clock
from swarmcore.errors import InvalidArgumentError, UnavailableError
from swarmcore.plugin.acceptance import Abstain, Accept, AcceptancePolicy, JoinRequest, Pending, Reject, Verdict
from swarmcore.plugin.health import one_line
from swarmcore.plugin.plugin_set import PluginSet

log = logging.getLogger("swarmcore.ca")

DEADLINE_SECONDS = 2.0
TOKEN = "token"  # noqa: S105 - the name of a policy
NO_TOKEN = "A valid join token is necessary to join this cluster"  # noqa: S105 - a message
WAITS = "waits to be accepted by the operator"
_ROLES = {"worker": NodeRole.WORKER, "manager": NodeRole.MANAGER}


class AcceptRuleLike(Protocol):
    """One link, as the operator wrote it: a policy by name, and its configuration as typed."""

    @property
    def policy(self) -> str: ...
    @property
    def config(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Link:
    policy: str
    config: str = ""


def full_chain(rules: Sequence[AcceptRuleLike]) -> tuple[Link, ...]:
    """The links to ask: the operator's, and join tokens first unless the operator says something about them."""
    links = tuple(Link(rule.policy, rule.config) for rule in rules)
    return links if any(link.policy == TOKEN for link in links) else (Link(TOKEN), *links)


def grantable(policy: AcceptancePolicy, config: str) -> frozenset[NodeRole.ValueType]:
    """The roles that a policy may give: those that its configuration names, else those it says by itself."""
    named = frozenset(_ROLES[word] for word in (part.strip() for part in config.split(",")) if word in _ROLES)
    return named or policy.may_grant


@dataclass(frozen=True, slots=True)
class _Broken:
    """A policy that could not be asked."""

    reason: str


class AcceptanceChain:
    """Judges join requests."""

    def __init__(self, plugins: Callable[[], PluginSet], rules: Sequence[AcceptRuleLike], clock: Clock) -> None:
        self._plugins = plugins
        self._links = full_chain(rules)
        self._clock = clock

    async def judge(self, request: JoinRequest) -> Accept | Pending:
        """Any Reject rejects, else the first Accept accepts, else the node waits.

        Raises InvalidArgumentError for a rejected request and for a token that nothing accepts, UnavailableError
        where a policy that could have accepted the token is broken.
        """
        plugins = self._plugins()
        verdicts = await asyncio.gather(*(self._ask(plugins, link, request) for link in self._links))
        for verdict in verdicts:
            if isinstance(verdict, Reject):
                raise InvalidArgumentError(verdict.reason)
        for verdict in verdicts:
            if isinstance(verdict, Accept):
                return verdict
        broken = [verdict for verdict in verdicts if isinstance(verdict, _Broken)]
        if request.token:
            if broken:
                raise UnavailableError(broken[0].reason)
            # A node with a credential does not want to wait for a person: it is told that the credential is wrong.
            raise InvalidArgumentError(NO_TOKEN)
        reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Pending)]
        return Pending(reasons[0] if reasons else WAITS)

    async def _ask(self, plugins: PluginSet, link: Link, request: JoinRequest) -> Verdict | _Broken:
        capability = f"acceptance/{link.policy}"
        policy = plugins.acceptance.get(link.policy)
        if policy is None:
            reason = plugins.why_unavailable(capability)
            log.error("a node wants to join and can't be judged: %s", reason)
            return _Broken(reason)
        evaluation = asyncio.ensure_future(policy.evaluate(replace(request, config=link.config)))
        # One that ends after its deadline has nothing to say any more, not even what it raised.
        evaluation.add_done_callback(lambda done: done.cancelled() or done.exception())
        deadline = asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + DEADLINE_SECONDS))
        try:
            await asyncio.wait({evaluation, deadline}, return_when=asyncio.FIRST_COMPLETED)
            if not evaluation.done():
                log.error("%s did not answer in %.0f s", capability, DEADLINE_SECONDS)
                return _Broken(f"{capability} did not answer in time")
            verdict = evaluation.result()
        except asyncio.CancelledError:
            if evaluation.cancelled():
                return _Broken(f"{capability} was cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - a policy's bug must not decide anything
            log.error("%s failed: %s", capability, one_line(error))
            # What it says is the operator's: it may name files, or hold what was typed as configuration.
            return _Broken(f"{capability} failed: the manager's log says more")
        finally:
            evaluation.cancel()
            deadline.cancel()
            await asyncio.gather(deadline, return_exceptions=True)
        if isinstance(verdict, Accept) and verdict.role not in grantable(policy, link.config):
            log.error("%s wanted to grant a role that it may not: %r", capability, verdict.role)
            return _Broken(f"{capability} may not grant this role")
        if not isinstance(verdict, (Accept, Pending, Reject, Abstain)):
            log.error("%s answered with %r", capability, type(verdict).__name__)
            return _Broken(f"{capability} gave no verdict")
        return verdict

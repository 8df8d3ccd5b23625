"""Decides whether a task that ended gets a successor.

Two policies: `default` is SwarmKit's, by the condition, delay, attempts and window of the task's spec; `backoff` waits
longer from one restart to the next. A service chooses with its label `swarmcore.restart-policy`.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.hookspecs import PluginHost, PluginInfo
from swarmcore.plugin.restart import RestartPolicy
from swarmcore_restart_policies.policies import BackoffPolicy, Configuration, DefaultPolicy

_backoff = BackoffPolicy(Configuration())


@hookimpl
def swarmcore_plugin() -> PluginInfo:
    return PluginInfo(
        name="restart-policies",
        summary="Decides whether a task that ended gets a successor",
        config=Configuration,
        roles=frozenset({"manager"}),
    )


@hookimpl
def swarmcore_configure(config: Configuration, host: PluginHost) -> None:
    _backoff.configuration = config


@hookimpl
def swarmcore_restart_policies() -> Sequence[RestartPolicy]:
    return [DefaultPolicy(), _backoff]

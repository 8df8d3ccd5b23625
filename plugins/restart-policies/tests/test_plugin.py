"""The plugin as the loader sees it."""

from __future__ import annotations

import swarmcore_restart_policies as plugin


def test_it_offers_both_policies() -> None:
    assert [policy.name for policy in plugin.swarmcore_restart_policies()] == ["default", "backoff"]


def test_it_says_who_it_is() -> None:
    info = plugin.swarmcore_plugin()

    assert info.name == "restart-policies"
    assert info.config is not None

"""Decides which nodes may join: token, auto, manual, psk.

Loaded by the core through the entry point `acceptance-policies`; asked by the CA when a node without a certificate
wants one. Start reading in `policies.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmcore.plugin import hookimpl
from swarmcore.plugin.acceptance import AcceptancePolicy, JoinMethod
from swarmcore_acceptance_policies.policies import Auto, Manual, Token
from swarmcore_acceptance_policies.psk import PreSharedKey, PreSharedKeyJoin


@hookimpl
def swarmcore_acceptance_policies() -> Sequence[AcceptancePolicy]:
    return [Token(), Auto(), Manual(), PreSharedKey()]


@hookimpl
def swarmcore_join_methods() -> Sequence[JoinMethod]:
    return [PreSharedKeyJoin()]

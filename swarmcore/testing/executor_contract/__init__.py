"""The suite that proves an executor: what every executor must do, as pytest classes that its author subclasses.

Start with `subject.py`, the one class an author writes, and `docs/executors.md`, which shows how. `program.py` is what
the suite lets tasks run. The checks stand by what they are about in `states.py`, `stopping.py`, `recovery.py`,
`crowd.py`, `logs.py`, `health.py`, `commands.py`, `usage.py`, `absence.py`, `leaks.py` and `description.py`; `case.py`
is what they stand on. `runner.py` runs them without pytest, for `python -m swarmcore.testing executor`. `memory` is
an executor that keeps to everything and runs nothing; `mutants` break it, once a check.
Only for container engines, and only with pytest, are `fields.py` and `faults.py`.
"""

from __future__ import annotations

from swarmcore.testing.executor_contract.absence import EngineContract
from swarmcore.testing.executor_contract.commands import ExecContract
from swarmcore.testing.executor_contract.crowd import CrowdContract
from swarmcore.testing.executor_contract.description import DescriptionContract
from swarmcore.testing.executor_contract.health import HealthContract
from swarmcore.testing.executor_contract.leaks import LeakContract
from swarmcore.testing.executor_contract.logs import LogContract
from swarmcore.testing.executor_contract.program import Health, Program
from swarmcore.testing.executor_contract.recovery import RecoveryContract
from swarmcore.testing.executor_contract.states import StateContract
from swarmcore.testing.executor_contract.stopping import StopContract
from swarmcore.testing.executor_contract.subject import Subject
from swarmcore.testing.executor_contract.usage import UsageContract


class CoreContract(
    DescriptionContract, StateContract, StopContract, RecoveryContract, CrowdContract, LogContract, LeakContract
):
    """What holds for every executor, also one without an engine that could stop, without health checks, and whose tasks
    have neither commands beside them nor figures of what they use.
    """


class ExecutorContract(CoreContract, HealthContract, ExecContract, UsageContract, EngineContract):
    """All checks."""


__all__ = [
    "CoreContract",
    "CrowdContract",
    "DescriptionContract",
    "EngineContract",
    "ExecContract",
    "ExecutorContract",
    "Health",
    "HealthContract",
    "LeakContract",
    "LogContract",
    "Program",
    "RecoveryContract",
    "StateContract",
    "StopContract",
    "Subject",
    "UsageContract",
]

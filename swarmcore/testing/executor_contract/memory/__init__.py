"""An engine that is a table in memory, and an executor for it that keeps to the whole contract.

The measure of the suite: it passes every check, and each of `mutants` spoils one thing of it. Start reading in
`boxes.py`.
"""

from __future__ import annotations

from swarmcore.testing.executor_contract.memory.boxes import Box, ModelEngine
from swarmcore.testing.executor_contract.memory.controller import LATENCY_SECONDS, ModelController
from swarmcore.testing.executor_contract.memory.executor import RUNTIME, ModelExecutor, ModelFactory
from swarmcore.testing.executor_contract.memory.subject import ModelSubject

__all__ = [
    "LATENCY_SECONDS",
    "RUNTIME",
    "Box",
    "ModelController",
    "ModelEngine",
    "ModelExecutor",
    "ModelFactory",
    "ModelSubject",
]

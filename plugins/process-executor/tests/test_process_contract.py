"""The contract suite on real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarmcore_process_executor.factory import ProcessFactory

from swarmcore.testing.executor_contract import CoreContract, ExecContract, HealthContract, UsageContract
from swarmcore.testing.executor_contract.subjects.processes import ProcessSubject


class TestProcesses(CoreContract, HealthContract, ExecContract, UsageContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> ProcessSubject:
        return ProcessSubject(ProcessFactory(), tmp_path)

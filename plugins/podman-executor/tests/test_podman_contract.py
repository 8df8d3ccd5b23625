"""The contract suite on a real Podman service."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.testing.executor_contract import ExecutorContract
from swarmcore.testing.executor_contract.subjects.container_engine import PodmanEngineSubject
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine


class TestPodman(ExecutorContract):
    @pytest.fixture
    def subject(self, podman_engine: PodmanEngine, tmp_path: Path) -> PodmanEngineSubject:
        return PodmanEngineSubject(
            PodmanFactory(),
            podman_engine.socket,
            tmp_path,
            image="redis:3.0.5",
            stop=podman_engine.stop,
            start=lambda: None if podman_engine.is_running else podman_engine.start(),
        )

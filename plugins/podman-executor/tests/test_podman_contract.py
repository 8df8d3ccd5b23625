"""The contract suite on a real Podman service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.testing.executor_contract import ExecutorContract
from swarmcore.testing.executor_contract.subjects.container_engine import ContainerEngineSubject
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine


class PodmanSubject(ContainerEngineSubject):
    log_resolution: ClassVar[float] = 1.0
    """The service tells whole seconds."""


class TestPodman(ExecutorContract):
    @pytest.fixture
    def subject(self, podman_engine: PodmanEngine, tmp_path: Path) -> PodmanSubject:
        return PodmanSubject(
            PodmanFactory(),
            podman_engine.socket,
            tmp_path,
            image="redis:3.0.5",
            stop=podman_engine.stop,
            start=lambda: None if podman_engine.is_running else podman_engine.start(),
        )

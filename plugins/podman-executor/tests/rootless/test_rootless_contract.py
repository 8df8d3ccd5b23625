"""The contract suite on a rootless Podman service."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarmcore_podman_executor.factory import PodmanFactory

from swarmcore.testing.executor_contract import CoreContract, EngineContract, ExecContract, HealthContract
from swarmcore.testing.executor_contract.subjects.container_engine import PodmanEngineSubject
from swarmcore.testing.podman_engines import PodmanEngine

pytestmark = pytest.mark.engine


class TestRootlessPodman(CoreContract, HealthContract, ExecContract, EngineContract):
    """All but what tasks use: without cgroups of their own nobody knows it."""

    @pytest.fixture
    def subject(self, rootless_podman_engine: PodmanEngine, tmp_path: Path) -> PodmanEngineSubject:
        return PodmanEngineSubject(
            PodmanFactory(),
            rootless_podman_engine.socket,
            tmp_path,
            image="redis:3.0.5",
            stop=rootless_podman_engine.stop,
            start=lambda: None if rootless_podman_engine.is_running else rootless_podman_engine.start(),
        )

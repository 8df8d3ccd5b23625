"""The contract suite on a real Docker Engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from swarmcore_docker_executor.factory import DockerFactory

from swarmcore.testing.engines import DockerEngine
from swarmcore.testing.executor_contract import ExecutorContract
from swarmcore.testing.executor_contract.subjects.container_engine import ContainerEngineSubject

pytestmark = pytest.mark.engine


class TestDocker(ExecutorContract):
    @pytest.fixture
    def subject(self, docker_engine: DockerEngine, tmp_path: Path) -> ContainerEngineSubject:
        return ContainerEngineSubject(
            DockerFactory(),
            docker_engine.socket,
            tmp_path,
            image="redis:3.0.5",
            binary_log_driver="local",
            stop=docker_engine.stop,
            start=lambda: None if docker_engine.is_running else docker_engine.start(),
        )

"""Every field of a container spec, and every fault, on a real Docker Engine."""

from __future__ import annotations

import pytest
from swarmcore_docker_executor.factory import DockerFactory

from swarmcore.testing.engines import DockerEngine
from swarmcore.testing.executor_contract.container_tasks import ContainerEngine
from swarmcore.testing.executor_contract.faults import ContainerFaults
from swarmcore.testing.executor_contract.fields import ContainerFields
from swarmcore.testing.executor_contract.root_fields import RootFields

pytestmark = pytest.mark.engine

REFUSED_BY_20_10 = frozenset(
    {"subpath", "readonlyforcerecursive", "start_interval", "selinux_context", "createmountpoint"}
    | {"tmpfs_options.options", "container.mounts.readonly"}
)


@pytest.fixture
def engine(docker_engine: DockerEngine) -> ContainerEngine:
    return ContainerEngine(
        factory=DockerFactory(),
        address=docker_engine.address,
        cli=docker_engine.docker,
        refuses=REFUSED_BY_20_10,
    )


class TestDockerFields(ContainerFields):
    """On Docker."""


class TestDockerRootFields(RootFields):
    """On Docker."""


class TestDockerFaults(ContainerFaults):
    """On Docker."""

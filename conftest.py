"""What every test may use: real engines where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from swarmcore.testing import engines, podman_engines


def require(reason: str | None) -> None:
    """Skip with the reason; in CI a missing engine is a failure."""
    if reason is None:
        return
    if os.environ.get("SWARMCORE_REQUIRE_ENGINES"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[engines.DockerEngine]:
    """A private Docker Engine, shared by the tests of a run."""
    require(engines.missing_engine())
    with engines.docker_engine(images=("redis:3.0.5", "redis:3.0.6", "redis:3.0.7")) as engine:
        yield engine


@pytest.fixture(scope="session")
def podman_engine() -> Iterator[podman_engines.PodmanEngine]:
    """A private Podman service, shared by the tests of a run."""
    require(podman_engines.missing_podman())
    with podman_engines.podman_engine(images=("redis:3.0.5", "redis:3.0.6", "redis:3.0.7")) as engine:
        yield engine

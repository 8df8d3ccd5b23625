"""What every test may use: real engines where there are any."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from swarmcore.testing import engines, podman_engines

# What is a user's own who is not root; root runs these tests as such a one, in `test_podman_rootless.py`.
collect_ignore_glob = ["plugins/*/tests/rootless/*"] if os.geteuid() == 0 else []


def pytest_configure() -> None:
    # A shell has what it runs in the background ignore ctrl-C, and so would every command that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def rootless_podman_engine() -> Iterator[podman_engines.PodmanEngine]:
    """The own Podman service of a user who is not root, shared by the tests of a run."""
    require(podman_engines.missing_rootless_podman())
    with podman_engines.rootless_podman_engine() as engine:
        yield engine

"""The Docker Engine that `make demo ENGINE=docker` uses: one of its own where it can start one, else the machine's."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence

import docker
import requests
from docker.errors import DockerException
from rich.console import Console

from swarmcore.testing.demo import SERVICE, Workload
from swarmcore.testing.demo_stage import StepError
from swarmcore.testing.engines import docker_engine, missing_engine

OLD, NEW = "busybox:1.36", "busybox:1.37"
MACHINES_ENGINE = "unix:///var/run/docker.sock"
LABEL = "com.docker.swarm.service.name"
LOOP = "trap exit TERM; sleep 1000000 & wait"
"""A bare `sleep` as process 1 would not hear SIGTERM."""


@contextlib.contextmanager
def containers(console: Console) -> Iterator[Workload]:
    """Offer a workload of containers; raises StepError with what to install where no engine is to be had."""
    missing = missing_engine()
    if missing is None:
        console.print("starting a Docker Engine of its own …")
        with docker_engine(images=(OLD, NEW)) as engine:
            yield _workload(engine.address)
        return
    client = _machines_engine(missing)
    with contextlib.closing(client):
        _have_images(client, console)
        before = {container["Id"] for container in _ours(client)}
        try:
            yield _workload(MACHINES_ENGINE)
        finally:
            for container in _ours(client):
                if container["Id"] not in before:
                    with contextlib.suppress(DockerException, requests.RequestException):
                        client.remove_container(container["Id"], force=True, v=True)


def _workload(address: str) -> Workload:
    ps: Sequence[str] = ()
    if shutil.which("docker"):
        format_ = r"table {{.Names}}\t{{.Image}}\t{{.Status}}"
        ps = ("docker", "-H", address, "ps", "--filter", f"label={LABEL}={SERVICE}", "--format", format_)
    return Workload(
        what="tasks are containers on one Docker Engine that they share",
        executor="docker",
        engine_addr=address,
        create=("--image", OLD, "--command", "sh", "--args", "-c", "--args", LOOP),
        update=("--image", NEW),
        ps=tuple(ps),
    )


def _machines_engine(missing: str) -> docker.APIClient:
    try:
        client = docker.APIClient(base_url=MACHINES_ENGINE, version="auto", timeout=30)
    except (DockerException, requests.RequestException):
        raise StepError(
            f"no Docker Engine answers at {MACHINES_ENGINE}, and none can be started ({missing}): "
            "install and start Docker, or as root on Debian: apt-get install docker.io iptables busybox-static"
        ) from None
    return client


def _have_images(client: docker.APIClient, console: Console) -> None:
    for image in (OLD, NEW):
        try:
            if client.images(image):
                continue
            console.print(f"pulling {image} …")
            repository, _, tag = image.partition(":")
            client.pull(repository, tag)
        except (DockerException, requests.RequestException) as error:
            raise StepError(
                f"Docker has no image {image} and can't pull it ({error}): "
                f"`docker pull {image}` must work, or run `make demo` without ENGINE"
            ) from None


def _ours(client: docker.APIClient) -> list[dict[str, str]]:
    try:
        return list(client.containers(all=True, filters={"label": f"{LABEL}={SERVICE}"}))
    except (DockerException, requests.RequestException):
        return []

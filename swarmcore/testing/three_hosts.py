"""Three real hosts and one cluster: docker1 and docker2 run swarmd, docker3 is a stock Docker Engine that joined.

What runs is read from the engines by `docker ps` and `docker inspect`, never from the manager.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from swarmcore.testing import engines
from swarmcore.testing.cluster import Swarmctl, Swarmd, engine_flags, swarmd, wait_until
from swarmcore.testing.engines import DockerEngine, Host

T = TypeVar("T")

EXPECTED_OF_STOCK = re.compile(
    r"pulling image failed"  # there is no registry, and the image is on the engine already
    r"|agent: session failed.*code = Unavailable"  # while our swarmd is killed
    r"|fatal task error.*No such image"
    r"|removal of container .* is already in progress"  # when it leaves, it removes its containers twice at once
)
HEARTBEAT = "2s"
"""A node is DOWN after three periods without a heartbeat, which tests wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What an engine says of a container."""

    id: str
    name: str
    host: str
    image: str
    slot: int
    task: str
    is_running: bool
    started: float
    finished: float
    """0 while it runs."""
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarm:
    """The three hosts, and what runs on them."""

    hosts: list[Host]
    manager: Swarmd
    worker: Swarmd
    pool: ThreadPoolExecutor

    @property
    def ctl(self) -> Swarmctl:
        return self.manager.swarmctl

    @property
    def stock(self) -> DockerEngine:
        return engine(self.hosts[2])

    def containers(self, service: str, *, every: bool = False) -> list[Container]:
        """The service's containers that run, or all that are left of it, as the engines that are up say, by slot."""
        found = self.pool.map(lambda host: inspect(host, service, every=every), self.hosts)
        return sorted(itertools.chain(*found), key=lambda each: (each.slot, each.started))

    def wait_running(
        self, service: str, image: str, count: int, *, hosts: set[str] | None = None, seconds: float = 20
    ) -> list[Container]:
        """Return the containers once the engines run exactly `count`, all of `image`, on exactly `hosts`."""

        def settled() -> list[Container]:
            # `docker ps` alone is half the work, and most rounds end here.
            running = sorted(itertools.chain(*self.pool.map(lambda host: listed(host, service), self.hosts)))
            if [image for _, image in running] != [image] * count or hosts not in (None, {host for host, _ in running}):
                raise AssertionError(f"the engines run {running}, not {count} of {image}")
            found = self.containers(service)
            if sorted((each.host, each.image) for each in found) != running:
                raise AssertionError(f"the engines are changing: {found}")
            return found

        return self._wait(settled, service, seconds)

    def wait_global(self, service: str) -> dict[str, Container]:
        """Return the one container that each host runs of a global service, by the host's name."""

        def settled() -> dict[str, Container]:
            found = self.containers(service)
            if sorted(each.host for each in found) != [host.hostname for host in self.hosts]:
                raise AssertionError(f"the engines run {found}")
            return {each.host: each for each in found}

        return self._wait(settled, service, seconds=20)

    def wait_gone(self, service: str, *, seconds: float = 20) -> None:
        """Return once no engine has a container of the service any more, running or not."""

        def gone() -> None:
            left = self.containers(service, every=True)
            if left:
                raise AssertionError(f"the engines still have {left}")

        self._wait(gone, service, seconds)

    def nodes(self) -> dict[str, dict[str, str]]:
        """The rows of `swarmctl node ls` by the nodes' names."""
        return {row["Name"]: row for row in self.ctl.table("node", "ls")}

    def wait_nodes(self, *status: str, seconds: float = 20) -> None:
        """Return once the nodes, in order of their names, have these statuses."""

        def so() -> None:
            shown = [row["Status"] for row in self.nodes().values()]
            if shown != list(status):
                raise AssertionError(f"the nodes are {shown}, not {list(status)}")

        wait_until(so, seconds=seconds)

    def join_stock(self) -> None:
        """`docker swarm join` on docker3, with the worker's token."""
        host = self.hosts[2]
        own = ("--advertise-addr", host.address, "--listen-addr", f"{host.address}:2377")
        manager = f"{self.hosts[0].address}:4242"
        self.stock.docker("swarm", "join", "--token", worker_token(self.manager), *own, manager)

    def stock_complaints(self) -> list[str]:
        """Errors and warnings of the stock engine's own agent, without those that tests bring about."""
        lines = (line for line in first_failures(self.stock.log) if re.search(r"level=(error|warn|fatal)", line))
        return [line for line in lines if "module=node" in line and not EXPECTED_OF_STOCK.search(line)]

    def _wait(self, check: Callable[[], T], service: str, seconds: float) -> T:
        """`wait_until`, and what the manager thinks of the service where that fails."""
        try:
            return wait_until(check, seconds=seconds)
        except AssertionError as error:
            page = self.ctl.run("service", "inspect", "--all", service).stdout.decode()
            raise AssertionError(f"{error}\nthe manager says:\n{page}") from error


def first_failures(log: str) -> Iterator[str]:
    """The lines of a stock engine's log, of each agent's session the first failure only.

    Several goroutines of that agent share a session. When one of them fails, it cancels the others, and it is up to
    chance whether "context canceled" of one of those is logged too, as a second failure of the same session.
    """
    has_failed = False
    for line in log.splitlines():
        if 'msg="manager selected by agent for new session' in line:
            has_failed = False
        elif 'msg="agent: session failed"' in line:
            if has_failed:
                continue
            has_failed = True
        yield line


def engine(host: Host) -> DockerEngine:
    assert host.engine is not None
    return host.engine


def listed(host: Host, service: str) -> list[tuple[str, str]]:
    """Host and image of each running container of the service, by `docker ps`."""
    if not engine(host).is_running:
        return []
    label = f"label=com.docker.swarm.service.name={service}"
    images = engine(host).docker("ps", "--filter", label, "--format", "{{.Image}}").split()
    return [(host.hostname, image) for image in images]


def inspect(host: Host, service: str, *, every: bool = False) -> list[Container]:
    """`docker ps`, then `docker inspect` of what it listed."""
    docker = engine(host).docker
    if not engine(host).is_running:
        return []
    label = f"label=com.docker.swarm.service.name={service}"
    ids = docker("ps", "-q", "--no-trunc", "--filter", label, *(["-a"] if every else [])).split()
    # One that goes between the two calls is named on stderr, and the others are still printed.
    found = json.loads(docker("inspect", *ids, check=False) or "[]") if ids else []
    return [container(host, each) for each in found]


def container(host: Host, told: dict[str, object]) -> Container:
    state, config = told["State"], told["Config"]
    assert isinstance(state, dict) and isinstance(config, dict)
    labels = config["Labels"]
    return Container(
        id=str(told["Id"]),
        name=str(told["Name"]).removeprefix("/"),
        host=host.hostname,
        image=config["Image"],
        slot=int(slot) if (slot := labels["com.docker.swarm.task.name"].split(".")[1]).isdigit() else 0,
        task=labels["com.docker.swarm.task.id"],
        is_running=state["Running"],
        started=moment(state["StartedAt"]),
        finished=0.0 if state["Running"] else moment(state["FinishedAt"]),
        restarts=int(str(told["RestartCount"])),
    )


def moment(text: str) -> float:
    """Seconds of an engine's time stamp, which has nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def container_events(host: Host, since: float) -> list[str]:
    """Everything that happened to containers of an engine since then, in its own words."""
    span = ("--since", f"{since:.9f}", "--until", f"{time.time():.9f}")
    return engine(host).docker("events", *span, "--filter", "type=container").splitlines()


@contextlib.contextmanager
def three_hosts(*images: str) -> Iterator[Swarm]:
    """Hosts 1 and 2 joined as the operator's session shows it; host 3 joined with the worker's token."""
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(engines.hosts(3, images=images))
        first, second, _ = hosts
        flags = ("--hostname", "docker1", "--accept", "auto", *engine_flags(first))
        manager = stack.enter_context(swarmd(first.folder / "swarmd", *flags, host=first))
        address = f"{first.address}:4242"
        flags = ("--hostname", "docker2", "--join-addr", address, *engine_flags(second))
        worker = stack.enter_context(swarmd(second.folder / "swarmd", *flags, host=second))
        pool = stack.enter_context(ThreadPoolExecutor(3))
        swarm = Swarm(hosts=hosts, manager=manager, worker=worker, pool=pool)
        swarm.join_stock()
        swarm.ctl("cluster", "update", "default", "--heartbeatperiod", HEARTBEAT)
        yield swarm


def worker_token(manager: Swarmd) -> str:
    """As an operator reads it."""
    found = re.search(r"Worker\s*: (SWMTKN-1-\S+)", manager.swarmctl("cluster", "inspect", "default"))
    if found is None:
        raise AssertionError("`swarmctl cluster inspect` shows no worker token")
    return found[1]

"""Three managers that can be killed and started again, ours and Docker's, asked for the same over their own APIs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio
import psutil

from bench.managers import IMAGE, UnixConnection
from swarmcore.api.control_pb2 import (
    CreateConfigRequest,
    ListClustersRequest,
    ListConfigsRequest,
    ListNodesRequest,
)
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.types_pb2 import RaftMemberStatus
from swarmcore.testing.engines import Host, hosts
from swarmcore.testing.machines import Machines

CALL_SECONDS = 3.0
"""Less than either side may take, so that a call which hangs is soon followed by another."""
ALL_UP_SECONDS = 90.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.05
CALLS_AT_ONCE = 64
NUMBERS = (1, 2, 3)


class CallRefused(Exception):
    """A manager did not do what it was asked for; the text is its reason."""


class Group(Protocol):
    """What a measurement asks of three managers, numbered from 1."""

    name: str

    async def leader(self) -> int:
        """Which one leads, once all three are there and agree on it. Raises TimeoutError."""
        ...

    async def write(self, via: int, name: str) -> None:
        """Create a small config over one manager; returns when it is acknowledged. Raises CallRefused."""
        ...

    async def written(self, via: int) -> set[str]:
        """Names of all configs, as one manager tells them. Raises CallRefused."""
        ...

    def end(self, number: int, how: signal.Signals) -> None:
        """Send one manager a signal that ends it."""
        ...

    async def start_again(self, number: int) -> None:
        """Start one that was ended on what it has on its disk; returns when its process runs."""
        ...


class OwnGroup:
    """Three `swarmd` on loopback."""

    name = "ours"

    def __init__(self, folder: Path) -> None:
        self._machines = Machines(folder)
        self.daemons = {number: self._machines.make(f"m{number}") for number in NUMBERS}
        self._channels = {
            number: grpc.aio.insecure_channel(
                f"unix:{daemon.socket}",
                options=[
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.min_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 100),
                    ("grpc.max_receive_message_length", -1),
                ],
            )
            for number, daemon in self.daemons.items()
        }
        self.controls = {number: ControlStub(channel) for number, channel in self._channels.items()}

    async def start(self) -> None:
        """Found a cluster and let the other two in."""
        self.daemons[1].start()
        deadline = time.monotonic() + ALL_UP_SECONDS
        clusters: Sequence[Any] = ()
        while not clusters:
            with contextlib.suppress(grpc.aio.AioRpcError):
                clusters = (await self.controls[1].ListClusters(ListClustersRequest(), timeout=2)).clusters
            if time.monotonic() > deadline or not self.daemons[1].is_running:
                raise TimeoutError("the first manager does not answer; its log says why")
            await asyncio.sleep(LOOK_SECONDS)
        token = clusters[0].root_ca.join_tokens.manager
        self.worker_token = clusters[0].root_ca.join_tokens.worker
        for number in NUMBERS[1:]:
            daemon = self.daemons[number]
            daemon.flags = (*daemon.flags, *self._machines.join_flags(token, by="m1"))
            daemon.start()
        await self.leader()

    def port(self, number: int) -> int:
        return int(self._machines.addresses[f"m{number}"].rpartition(":")[2])

    def process(self, number: int) -> psutil.Process:
        return psutil.Process(self.daemons[number].pid)

    @property
    def elections(self) -> int:
        """How often a manager of the group has begun to lead."""
        return sum(daemon.log.count("leading in term") for daemon in self.daemons.values())

    async def leader(self) -> int:
        async with asyncio.timeout(ALL_UP_SECONDS):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    told = [await self._leader_by(number) for number in NUMBERS]
                    if told[0] and len(set(told)) == 1:
                        return told[0]
                await asyncio.sleep(LOOK_SECONDS)

    async def _leader_by(self, number: int) -> int:
        """Who leads by the word of one manager; 0 while it misses anybody."""
        nodes = (await self.controls[number].ListNodes(ListNodesRequest(), timeout=2)).nodes
        managers = [node for node in nodes if node.HasField("manager_status")]
        if sum(node.manager_status.reachability == RaftMemberStatus.REACHABLE for node in managers) < len(NUMBERS):
            return 0
        leaders = [node.description.hostname for node in managers if node.manager_status.leader]
        return int(leaders[0].removeprefix("m")) if len(leaders) == 1 else 0

    async def write(self, via: int, name: str) -> None:
        request = CreateConfigRequest()
        request.spec.annotations.name = name
        request.spec.data = b"x"
        try:
            await self.controls[via].CreateConfig(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CallRefused(f"{error.code().name}: {error.details()}") from None

    async def written(self, via: int) -> set[str]:
        try:
            answer = await self.controls[via].ListConfigs(ListConfigsRequest(), timeout=60)
        except grpc.aio.AioRpcError as error:
            raise CallRefused(f"{error.code().name}: {error.details()}") from None
        return {config.spec.annotations.name for config in answer.configs}

    def end(self, number: int, how: signal.Signals) -> None:
        self.process(number).send_signal(how)

    async def start_again(self, number: int) -> None:
        daemon = self.daemons[number]
        await asyncio.to_thread(daemon.wait_end, seconds=STOP_SECONDS)
        daemon.start()

    async def aclose(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        # Nothing of them is needed any more, and a stop in good order is not what is measured here.
        self._machines.stop()


class DockerGroup:
    """Three engines, each on a host of its own, all managers of Docker's own swarm mode."""

    name = "docker"

    def __init__(self, machines: Sequence[Host]) -> None:
        self._hosts = dict(zip(NUMBERS, machines, strict=True))
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE + 4, "docker calls")

    async def start(self) -> None:
        first, *others = self._hosts.values()
        await asyncio.to_thread(self._docker, first, "swarm", "init", *_addresses(first))
        token = (await asyncio.to_thread(self._docker, first, "swarm", "join-token", "-q", "manager")).strip()
        for host in others:
            join = ("swarm", "join", *_addresses(host), "--token", token, f"{first.address}:2377")
            await asyncio.to_thread(self._docker, host, *join)
        await self.leader()

    @staticmethod
    def _docker(host: Host, *arguments: str) -> str:
        assert host.engine is not None
        return host.engine.docker(*arguments)

    async def leader(self) -> int:
        async with asyncio.timeout(ALL_UP_SECONDS):
            while True:
                with contextlib.suppress(CallRefused):
                    told = [await self._leader_by(number) for number in NUMBERS]
                    if told[0] and len(set(told)) == 1:
                        return told[0]
                await asyncio.sleep(LOOK_SECONDS)

    async def _leader_by(self, number: int) -> int:
        nodes = await self._ask(number, "GET", "/nodes")
        managers = {node["ManagerStatus"]["Addr"]: node["ManagerStatus"] for node in nodes if "ManagerStatus" in node}
        if sum(status["Reachability"] == "reachable" for status in managers.values()) < len(NUMBERS):
            return 0
        leaders = [address for address, status in managers.items() if status.get("Leader")]
        by_address = {f"{host.address}:2377": number for number, host in self._hosts.items()}
        return by_address[leaders[0]] if len(leaders) == 1 else 0

    async def write(self, via: int, name: str) -> None:
        await self._ask(via, "POST", "/configs/create", {"Name": name, "Data": "eA=="})

    async def written(self, via: int) -> set[str]:
        return {config["Spec"]["Name"] for config in await self._ask(via, "GET", "/configs")}

    async def _ask(self, via: int, method: str, path: str, body: object = None) -> Any:
        engine = self._hosts[via].engine
        assert engine is not None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _ask_engine, str(engine.socket), method, path, body)

    def end(self, number: int, how: signal.Signals) -> None:
        engine = self._hosts[number].engine
        assert engine is not None
        engine.process.send_signal(how)

    async def start_again(self, number: int) -> None:
        engine = self._hosts[number].engine
        assert engine is not None
        await asyncio.to_thread(engine.process.wait, STOP_SECONDS)
        await asyncio.to_thread(engine.start)

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for host in self._hosts.values():
            assert host.engine is not None
            if not host.engine.is_running:
                # One that was killed leaves its containerd behind; one that is stopped takes it along.
                with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
                    pid = int((host.engine.folder / "exec" / "containerd" / "containerd.pid").read_text())
                    process = psutil.Process(pid)
                    if str(host.engine.folder) in " ".join(process.cmdline()):
                        process.terminate()


def _addresses(host: Host) -> tuple[str, ...]:
    return ("--advertise-addr", host.address, "--listen-addr", f"{host.address}:2377")


def _ask_engine(path: str, method: str, url: str, body: object) -> Any:
    with contextlib.closing(UnixConnection(path, CALL_SECONDS)) as connection:
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, "/v1.41" + url, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
        except OSError as error:
            raise CallRefused(str(error) or type(error).__name__) from None
        if answer.status >= 300:
            raise CallRefused(f"{answer.status} {data.decode(errors='replace').strip()}")
        return json.loads(data) if data else None


@contextlib.asynccontextmanager
async def own_group(folder: Path) -> AsyncIterator[OwnGroup]:
    """Three managers of ours, gone afterwards."""
    group = OwnGroup(folder)
    try:
        await group.start()
        yield group
    except BaseException:
        for number, daemon in group.daemons.items():
            if daemon.process is not None and not daemon.is_running:
                print(f"m{number} is not running; its log ends with:\n{daemon.log[-2000:]}")
        raise
    finally:
        await group.aclose()


@contextlib.asynccontextmanager
async def docker_group(folder: Path) -> AsyncIterator[DockerGroup]:
    """Three managers of Docker's, gone afterwards with their hosts."""
    os.environ["DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"] = "1"
    with contextlib.ExitStack() as stack:
        machines = await asyncio.to_thread(stack.enter_context, hosts(len(NUMBERS), images=(IMAGE,)))
        group = DockerGroup(machines)
        try:
            await group.start()
            yield group
        finally:
            await group.aclose()
